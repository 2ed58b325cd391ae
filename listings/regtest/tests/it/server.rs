//! The served chain as another process meets it, and the refusals of `Chain::rpc`.

use std::net::SocketAddr;
use std::path::Path;

use crate::common::{Backend, Wallet};
use axum::Router;
use axum::routing::post;
use regtest::{Chain, EmbeddedChain, RpcAuth, RpcChain, serve};
use serde_json::{Value, json};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn login(password: &str) -> RpcAuth {
    RpcAuth::UserPass("alice".to_owned(), password.to_owned())
}

/// Serves `chain` for alice with the password "secret".
async fn served(chain: EmbeddedChain) -> String {
    let server = serve(chain, LOOPBACK, "alice".to_owned(), "secret".to_owned());
    let (addr, server) = server.await.unwrap();
    tokio::spawn(server);
    addr.to_string()
}

async fn client() -> RpcChain {
    RpcChain::connect(&served(EmbeddedChain::new()).await, login("secret")).await.unwrap()
}

async fn error_of(client: &RpcChain, method: &str, params: &[Value]) -> String {
    format!("{:#}", client.call(method, params).await.unwrap_err())
}

#[tokio::test]
async fn two_sides_see_one_chain() {
    let inside = EmbeddedChain::new();
    let outside = Chain::rpc(&served(inside.clone()).await, login("secret")).await.unwrap();
    assert_eq!((outside.kind(), Chain::Embedded(inside.clone()).kind()), ("bitcoind", "embedded"));
    inside.mine(2, &Wallet::new().script()).await.unwrap();
    assert_eq!(outside.tip().await.unwrap(), inside.tip());
    let mined = outside.mine(1, &Wallet::new().script()).await.unwrap();
    assert_eq!(inside.tip(), mined[0]);
    assert_eq!(inside.height(), 3);
}

#[tokio::test]
async fn refuses_wrong_credentials() {
    let addr = served(EmbeddedChain::new()).await;
    let error = Chain::rpc(&addr, login("guess")).await.unwrap_err();
    assert!(format!("{error:#}").contains("401"), "{error:#}");
    Chain::rpc(&addr, login("secret")).await.unwrap();
}

#[tokio::test]
async fn reads_a_cookie_file() {
    let addr = served(EmbeddedChain::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cookie");
    let missing = Chain::rpc(&addr, RpcAuth::Cookie(path.clone())).await.unwrap_err();
    assert!(missing.to_string().contains("cannot read the cookie file"), "{missing}");
    std::fs::write(&path, "alice:secret\n").unwrap();
    Chain::rpc(&addr, RpcAuth::Cookie(path)).await.unwrap();
}

#[tokio::test]
async fn serves_only_this_machine() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let result = serve(EmbeddedChain::new(), everywhere, "a".to_owned(), "b".to_owned()).await;
    let error = result.err().expect("refused").to_string();
    assert!(error.contains("only loopback"), "{error}");
}

#[tokio::test]
async fn answers_mistakes_with_errors() {
    let client = client().await;
    let unknown = error_of(&client, "getpeerinfo", &[]).await;
    assert!(unknown.contains("-32601"), "{unknown}");
    let hash = json!("00".repeat(32));
    for (method, params, code) in [
        ("getblockheader", vec![], "-8"),
        ("getblockheader", vec![json!("no hash")], "-8"),
        ("getblockheader", vec![hash.clone()], "-5"),
        ("getblock", vec![hash.clone(), json!(0)], "-5"),
        ("getblock", vec![hash.clone(), json!(2)], "-8"),
        ("getblockhash", vec![json!(1)], "-8"),
        ("getblockhash", vec![json!(-1)], "-8"),
        ("getrawtransaction", vec![hash.clone()], "-5"),
        ("sendrawtransaction", vec![json!("zz")], "-22"),
        // an address of the main network
        ("generatetoaddress", vec![json!(1), json!("1BitcoinEaterAddressDontSendf59kuE")], "-5"),
        ("generatetodescriptor", vec![json!(1), json!("wpkh(02)")], "-5"),
        ("invalidateblock", vec![hash], "-5"),
    ] {
        let error = error_of(&client, method, &params).await;
        assert!(error.contains(&format!("RPC error {code}:")), "{method} {params:?}: {error}");
    }
    assert_eq!(client.height().await.unwrap(), 0);
}

#[tokio::test]
async fn a_wait_with_a_time_limit_ends_without_a_block() {
    let client = client().await;
    let tip = client.tip().await.unwrap().to_string();
    let answer = client.call("waitfornewblock", &[json!(1), json!(tip)]).await.unwrap();
    assert_eq!(answer, json!({ "hash": tip, "height": 0 }));
}

/// A server that says it is on the main chain.
#[tokio::test]
async fn refuses_other_chains() {
    let answer = json!({ "result": { "chain": "main", "blocks": 900_000 }, "error": null });
    let router = Router::new().route("/", post(async move || answer.to_string()));
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let error = Chain::rpc(&addr, login("secret")).await.unwrap_err().to_string();
    assert!(error.contains("\"main\"") && error.contains("\"regtest\""), "{error}");
}

#[tokio::test]
async fn says_when_nothing_listens() {
    let listener = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Chain::rpc(&addr, login("secret")).await.unwrap_err().to_string();
    assert!(error.contains(&addr), "{error}");
}

#[tokio::test]
async fn a_temporary_bitcoind_ends_with_its_last_clone() {
    let Some(Backend { chain: Chain::Rpc(chain) }) = Backend::bitcoind().await else {
        return;
    };
    let (addr, auth) = (chain.addr().to_owned(), chain.auth().clone());
    let RpcAuth::Cookie(cookie) = &auth else { panic!("bitcoind writes a cookie") };
    let clone = chain.clone();
    // a task that waits for blocks must not keep it alive
    let tip = chain.tip().await.unwrap();
    let waiting = tokio::spawn(async move { chain.wait_for_new_tip(tip).await });
    Chain::rpc(&addr, auth.clone()).await.unwrap();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    Chain::rpc(&addr, auth.clone()).await.unwrap();
    assert!(cookie.exists());
    drop(clone);
    assert!(!cookie.exists());
    assert!(std::net::TcpStream::connect(&addr).is_err());
}

#[tokio::test]
async fn says_why_bitcoind_does_not_start() {
    let error = Chain::bitcoind_temporary(Path::new("no-such-program")).await.unwrap_err();
    assert!(error.to_string().contains("cannot start no-such-program"), "{error}");
    // a program that ends at once
    let error = Chain::bitcoind_temporary(Path::new("false")).await.unwrap_err();
    assert!(error.to_string().contains("false ended: exit status: 1"), "{error}");
}
