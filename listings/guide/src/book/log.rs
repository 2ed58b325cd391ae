//! What mdBook has to say against a book, and says only in its log.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Runs `work` and returns what this thread logged as a warning or an error meanwhile.
pub(super) fn during<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let complaints = Arc::<Mutex<Vec<String>>>::default();
    let collector = Collector(complaints.clone()).with_filter(LevelFilter::WARN);
    let subscriber = tracing_subscriber::registry().with(collector);
    let done = tracing::subscriber::with_default(subscriber, work);
    let complaints = std::mem::take(&mut *complaints.lock().expect("no panic while held"));
    (done, complaints)
}

struct Collector(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("no panic while held").push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a string takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_errors_are_kept_and_the_rest_is_not() {
        let (done, logged) = during(|| {
            tracing::info!("on its way");
            tracing::warn!(page = 3, "unclosed tag");
            tracing::error!("no such {}", "file");
            7
        });
        assert_eq!(done, 7);
        assert_eq!(logged, ["WARN unclosed tag page=3", "ERROR no such file"]);
    }
}
