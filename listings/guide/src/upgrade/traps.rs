//! LDK's own traps on the version that is tried: which still show, and which are gone.

use super::report::Test;
use book::Trap;
use std::fmt::{self, Display, Formatter};

/// What has become of each trap.
#[derive(Debug, Clone, Default)]
pub(super) struct Traps(Vec<(Trap, State)>);

/// What has become of one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Its test passes: LDK does as it did.
    Shows,
    /// Its test says that it no longer shows.
    Gone,
    /// Nobody can say, because of this.
    NotJudged(String),
}

/// What is known of the tests.
pub(super) struct Ran<'a> {
    /// Those of ours, wherever they are compiled.
    pub tests: &'a [Test],
    /// Whether a test compiles.
    pub compiles: &'a dyn Fn(&Test) -> bool,
    /// What `cargo test` printed.
    pub output: &'a str,
    /// The tests that passed, and those that failed, as `(target, path::of::test)`.
    pub passed: &'a [(String, String)],
    /// See [`Self::passed`].
    pub failed: &'a [(String, String)],
}

impl Traps {
    pub(super) fn judge(traps: Vec<Trap>, ran: &Ran<'_>) -> Self {
        let judged = traps.into_iter().map(|trap| {
            let state = state(&trap, ran);
            (trap, state)
        });
        Self(judged.collect())
    }

    fn count(&self, wanted: impl Fn(&State) -> bool) -> usize {
        self.0.iter().filter(|(_, state)| wanted(state)).count()
    }
}

fn state(trap: &Trap, ran: &Ran<'_>) -> State {
    let Some(spec) = &trap.unguarded else {
        return State::NotJudged("no test can show it".to_owned());
    };
    let Some(test) = ran.tests.iter().find(|test| test.spec() == *spec) else {
        return State::NotJudged(format!("there is no test {spec}"));
    };
    if !(ran.compiles)(test) {
        return State::NotJudged("its test does not compile".to_owned());
    }
    let is = |list: &[(String, String)]| list.iter().any(|named| test.is(named));
    // A test fails for other reasons, too; only its own word counts.
    let says_so = ran.output.contains(&format!("trap {} no longer shows", trap.id));
    match (is(ran.failed), is(ran.passed)) {
        (true, _) if says_so => State::Gone,
        (true, _) => State::NotJudged("its test fails before it comes to the point".to_owned()),
        (false, true) => State::Shows,
        (false, false) => State::NotJudged("its test did not run".to_owned()),
    }
}

impl Display for Traps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let of = |wanted: fn(&State) -> bool| self.0.iter().filter(move |(_, s)| wanted(s));
        let shows = |state: &State| *state == State::Shows;
        let gone = |state: &State| *state == State::Gone;
        let judged = self.count(shows) + self.count(gone);
        writeln!(
            f,
            "LDK's traps: {} still show, {} gone, {} not judged",
            self.count(shows),
            self.count(gone),
            self.0.len() - judged
        )?;
        for (trap, _) in of(|state| *state == State::Gone) {
            writeln!(f, "  gone: {}\n    the guard can go: {}", trap.id, trap.ours)?;
        }
        for (trap, state) in &self.0 {
            if let State::NotJudged(why) = state {
                writeln!(f, "  not judged: {}, as {why}", trap.id)?;
            }
        }
        for (trap, _) in of(|state| *state == State::Shows) {
            writeln!(f, "  still shows: {}", trap.id)?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cargo::Target;
    use super::*;

    fn trap(id: &str, unguarded: Option<&str>) -> Trap {
        Trap {
            id: id.to_owned(),
            group: String::new(),
            title: String::new(),
            says: String::new(),
            source: Vec::new(),
            documented: None,
            unguarded: unguarded.map(|name| format!("tests/lab/traps.rs::{name}")),
            untestable: None,
            ours: "tests/money.rs::ours".to_owned(),
            consequence: String::new(),
            cure: String::new(),
            tell: String::new(),
            upstream: Vec::new(),
        }
    }

    fn test(name: &str) -> Test {
        let target = Target {
            package: "guide".into(),
            name: "system".into(),
            kind: "test".into(),
            file: "tests/main.rs".into(),
            tested: true,
        };
        Test { file: "tests/lab/traps.rs".into(), name: name.into(), target }
    }

    fn of(name: &str) -> (String, String) {
        ("system".to_owned(), format!("lab::traps::{name}"))
    }

    fn judged(compiles: bool, output: &str) -> Traps {
        let tests = ["ldk_a", "ldk_b", "ldk_c", "ldk_d"].map(test);
        let ran = Ran {
            tests: &tests,
            compiles: &|_| compiles,
            output,
            passed: &[of("ldk_a")],
            failed: &[of("ldk_b"), of("ldk_c")],
        };
        let traps = vec![
            trap("a", Some("ldk_a")),
            trap("b", Some("ldk_b")),
            trap("c", Some("ldk_c")),
            trap("d", Some("ldk_d")),
            trap("e", Some("ldk_e")),
            trap("f", None),
        ];
        Traps::judge(traps, &ran)
    }

    #[test]
    fn only_a_test_that_says_so_makes_a_trap_gone() {
        let traps = judged(true, "panicked: LDK has changed: trap b no longer shows; the guard");
        let states: Vec<_> = traps.0.iter().map(|(_, state)| state.clone()).collect();
        let not = |why: &str| State::NotJudged(why.to_owned());
        assert_eq!(
            states,
            [
                State::Shows,
                State::Gone,
                not("its test fails before it comes to the point"),
                not("its test did not run"),
                not("there is no test tests/lab/traps.rs::ldk_e"),
                not("no test can show it"),
            ]
        );
        let text = traps.to_string();
        assert!(text.starts_with("LDK's traps: 1 still show, 1 gone, 4 not judged\n"), "{text}");
        assert!(text.contains("gone: b\n    the guard can go: tests/money.rs::ours"), "{text}");
    }

    #[test]
    fn what_does_not_compile_is_not_judged() {
        let traps = judged(false, "");
        assert_eq!(traps.count(|state| matches!(state, State::NotJudged(_))), 6);
        assert_eq!(Traps::default().to_string(), "");
    }
}
