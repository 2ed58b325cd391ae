//! Live runs: real nodes in this process play the flow with a reader's own choices, and the page
//! follows them.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /live` | what can be chosen, and whether a run is under way |
//! | `POST /live/run` | starts a run, or says why not |
//! | `GET /live/events?run=ID` | its steps, from the first on, as server-sent events |
//!
//! One run at a time. It is bounded in time, goes on when its reader leaves, and ends with the
//! server.

mod choices;
mod guard;
mod log;
mod stage;

pub use choices::{Choices, Refusal};
pub use log::End;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use recording::{Header, Lane};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::money::Books;
use crate::record::LANES;
use crate::story::{self, Setting};
use crate::world::World;
use log::Log;
use stage::Stage;

/// How long a run may take. On a machine at rest it takes a few seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// The most bytes that choices may have.
const MOST_BYTES: usize = 4_096;

/// How a run plays a world.
pub type Tell = Arc<dyn for<'a> Fn(&'a mut World, &'a Setting) -> Telling<'a> + Send + Sync>;
/// A run under way.
pub type Telling<'a> = Pin<Box<dyn Future<Output = Result<Books>> + Send + 'a>>;

/// How runs are played.
#[derive(Clone)]
pub struct Settings {
    /// How long one may take.
    pub limit: Duration,
    /// Where its folder is made.
    pub folder: PathBuf,
    /// What is played.
    pub tell: Tell,
    /// The version of LDK that plays.
    pub ldk: String,
}

impl Settings {
    /// The flow, as the book tells it.
    pub fn new(ldk: &str) -> Self {
        Self {
            limit: LIMIT,
            folder: std::env::temp_dir(),
            tell: Arc::new(|world, setting| Box::pin(story::flow(world, setting))),
            ldk: ldk.to_owned(),
        }
    }
}

/// The service. Dropping it stops the run that is under way, and waits for that.
pub struct Live {
    desk: Arc<Desk>,
}

struct Desk {
    settings: Settings,
    state: Mutex<Current>,
}

/// The run under way, or the last one: what came before it is forgotten.
#[derive(Default)]
struct Current {
    closed: bool,
    stage: Option<Stage>,
}

impl Live {
    /// A service that has not run anything yet.
    pub fn new(settings: Settings) -> Self {
        Self { desk: Arc::new(Desk { settings, state: Mutex::default() }) }
    }

    /// Its routes, for a server on this port of a loopback address.
    pub fn router(&self, port: u16) -> Router {
        Router::new()
            .route("/live", get(offer))
            .route("/live/run", post(start))
            .route("/live/events", get(events))
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .layer(middleware::from_fn_with_state(port, guard::only_ours))
            .with_state(self.desk.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let stage = {
            let mut current = self.desk.current();
            current.closed = true;
            current.stage.take()
        };
        drop(stage);
    }
}

impl Desk {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn header(&self, choices: &Choices) -> Header {
        let lane = |(id, label): (&str, &str)| Lane { id: id.to_owned(), label: label.to_owned() };
        Header {
            name: "live".to_owned(),
            title: "A run on this machine, just now".to_owned(),
            about: "Four nodes in the process that serves this book play the flow with your \
                    choices."
                .to_owned(),
            ldk: self.settings.ldk.clone(),
            setting: choices.told(),
            lanes: LANES.map(lane).into(),
        }
    }
}

/// Why a request was not granted.
#[derive(Clone, Debug, Serialize)]
struct Problem {
    error: String,
}

impl Problem {
    fn new(error: impl Into<String>) -> Json<Self> {
        Json(Self { error: error.into() })
    }
}

async fn offer(State(desk): State<Arc<Desk>>) -> Response {
    let current = desk.current();
    let log = current.stage.as_ref().map(|stage| &stage.log);
    let answer = json!({
        "running": log.is_some_and(|log| !log.has_ended()),
        "run": log.map(|log| &log.id),
        "limit_s": desk.settings.limit.as_secs(),
        "choices": choices::offered(),
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

async fn start(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_json(&headers) {
        let problem = Problem::new("send the choices as application/json");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, problem).into_response();
    }
    let chosen: serde_json::Map<String, Value> = match serde_json::from_slice(&body) {
        Ok(chosen) => chosen,
        Err(error) => {
            let problem = Problem::new(format!("send the choices as one JSON object: {error}"));
            return (StatusCode::BAD_REQUEST, problem).into_response();
        }
    };
    match Choices::read(&chosen) {
        Ok(choices) => desk.start(choices),
        Err(refusal) => (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response(),
    }
}

/// A form of another site cannot send this type, and a script there has to ask first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

impl Desk {
    fn start(&self, choices: Choices) -> Response {
        let mut current = self.current();
        if current.closed {
            let problem = Problem::new("the server is stopping: start it again");
            return (StatusCode::SERVICE_UNAVAILABLE, problem).into_response();
        }
        if let Some(log) = current.stage.as_ref().map(|stage| &stage.log).filter(|l| !l.has_ended())
        {
            let error = "a run is under way: wait for its end, or follow it";
            return (StatusCode::CONFLICT, Json(json!({ "error": error, "run": log.id })))
                .into_response();
        }
        let log = Arc::new(Log::new(&self.header(&choices)));
        match Stage::start(log.clone(), choices, self.settings.clone()) {
            Ok(stage) => {
                current.stage = Some(stage);
                (StatusCode::ACCEPTED, Json(json!({ "run": log.id }))).into_response()
            }
            Err(error) => {
                let problem = Problem::new(format!("nothing can be started: {error}"));
                (StatusCode::INTERNAL_SERVER_ERROR, problem).into_response()
            }
        }
    }
}

async fn events(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap) -> Response {
    // An id is hex, which a query does not escape.
    let query = uri.query().unwrap_or_default();
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("run="));
    let log = desk.current().stage.as_ref().map(|stage| stage.log.clone());
    let Some(log) = log.filter(|log| Some(&*log.id) == wanted) else {
        let problem = Problem::new("this run is forgotten: start another");
        return (StatusCode::NOT_FOUND, problem).into_response();
    };
    // What a browser sends by itself when it connects again. Anything but a number is none of ours.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    Sse::new(log.events(last)).keep_alive(KeepAlive::default()).into_response()
}
