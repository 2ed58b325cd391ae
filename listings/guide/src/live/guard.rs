//! Who may start and follow runs: pages of this server, in a browser on this machine.
//!
//! Listening on loopback keeps other machines out, not other pages: any site can make its reader's
//! browser send requests here, and a name it controls may come to mean 127.0.0.1.

use axum::extract::{Request, State};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

use super::Problem;

/// Lets a request pass that was sent to a loopback name at this port, by a page from there if by a
/// page.
pub(super) async fn only_ours(State(port): State<u16>, request: Request, next: Next) -> Response {
    let problem = match check(request.headers(), port) {
        Ok(()) => return next.run(request).await,
        Err(problem) => problem,
    };
    let error = format!("{problem}: open the book at http://127.0.0.1:{port}");
    (StatusCode::FORBIDDEN, Problem::new(error)).into_response()
}

fn check(headers: &HeaderMap, port: u16) -> Result<(), &'static str> {
    let host = only(headers, header::HOST).map_err(|()| "more than one Host")?;
    let host = host.and_then(|host| host.parse().ok());
    if !host.is_some_and(|host| is_ours(&host, port)) {
        return Err("live runs are for this machine, and this is not its name");
    }
    let origin = only(headers, header::ORIGIN).map_err(|()| "more than one Origin")?;
    match origin {
        Some(origin) if !is_our_page(origin, port) => {
            Err("live runs are started by the pages of this book, not by others")
        }
        _ => Ok(()),
    }
}

/// A header that may stand at most once; what is not text is nobody's name.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().unwrap_or_default());
    if values.next().is_some() { Err(()) } else { Ok(first) }
}

fn is_ours(authority: &Authority, port: u16) -> bool {
    const HTTP: u16 = 80;
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let has_user = authority.as_str().contains('@');
    is_loopback && !has_user && authority.port_u16().unwrap_or(HTTP) == port
}

/// Whether an `Origin` is a page of ours.
fn is_our_page(origin: &str, port: u16) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    origin.scheme_str() == Some("http")
        && origin.authority().is_some_and(|authority| is_ours(authority, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn passes(headers: &[(HeaderName, &str)], port: u16) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        check(&map, port).is_ok()
    }

    #[test]
    fn only_loopback_names_at_our_port_are_ours() {
        let host = |host: &str, port| passes(&[(header::HOST, host)], port);
        for ours in ["127.0.0.1:3000", "localhost:3000", "LocalHost:3000", "[::1]:3000"] {
            assert!(host(ours, 3000), "{ours}");
        }
        assert!(host("localhost", 80), "browsers leave the usual port out");
        for foreign in [
            "127.0.0.1:3001",
            "127.0.0.1",
            "rebound.example:3000",
            "127.0.0.1.example:3000",
            "localhost.example:3000",
            "0.0.0.0:3000",
            "user@localhost:3000",
            "",
        ] {
            assert!(!host(foreign, 3000), "{foreign}");
        }
        assert!(!passes(&[], 3000), "a request to nobody");
        let twice = [(header::HOST, "localhost:3000"), (header::HOST, "localhost:3000")];
        assert!(!passes(&twice, 3000));
    }

    #[test]
    fn a_page_from_elsewhere_is_not_ours() {
        let origin = |origin: &str| {
            passes(&[(header::HOST, "127.0.0.1:3000"), (header::ORIGIN, origin)], 3000)
        };
        assert!(origin("http://127.0.0.1:3000"));
        assert!(origin("http://localhost:3000"));
        for foreign in [
            "null",
            "https://localhost:3000",
            "http://localhost:8080",
            "http://localhost",
            "https://example.org",
            "file://",
            "",
        ] {
            assert!(!origin(foreign), "{foreign}");
        }
    }
}
