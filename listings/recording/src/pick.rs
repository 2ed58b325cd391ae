//! Moments of a recording and numbers in them, by name.
//!
//! `NAME@PARTY/SCENE` names a moment: what happened, at whom, in which scene. Party and scene may be
//! left out where the rest is enough. A message happens where it arrives.
//!
//! | Name | Moment |
//! |---|---|
//! | `update_add_htlc`, `static_invoice` | a message of the BOLTs, an onion message |
//! | `lsps2.buy`, `lsps2.buy.answer` | an LSPS request, and what came back |
//! | `PaymentForwarded` | an LDK event |
//! | `htlc.claimed`, `lease.bought`, `offer.persisted`, `mailbox.kept`, `paths.jit`, `channel.ready` | a state that something reached at the party |
//! | `balances`, `broadcast`, `started`, `stopped`, `connected`, `disconnected`, `block`, `note` | the rest |
//!
//! A number in a moment has the name of its field: `bytes` is the size of a message, `amount_msat`,
//! `capacity_sat` and the like are fields of what a node wrote down, of a JSON-RPC message, or of the
//! message's bytes as far as they are explained. Where a name is there twice, what is around it tells
//! them apart: `hop 2.enclen`, `lsp.spendable_msat` (of the channel with `lsp`). `FIELD.bytes` is how
//! many bytes an explained field takes. Of `balances` the last ones count. `setting` stands for the choices of the run.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::compare;
use crate::entry::{DIRECTOR, What};
use crate::moment::{Explained, Moment, Recording};
use crate::view::number;

/// A name, and where; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// What happened.
    pub name: &'a str,
    /// At whom.
    pub party: Option<&'a str>,
    /// In which scene.
    pub scene: Option<&'a str>,
}

impl<'a> Spec<'a> {
    /// Reads `NAME@PARTY/SCENE`.
    ///
    /// # Errors
    /// If the recording has no such party or scene; the error lists those it has.
    pub fn read(recording: &Recording, text: &'a str) -> Result<Self, String> {
        let (text, scene) = match text.split_once('/') {
            Some((text, scene)) => (text, Some(scene)),
            None => (text, None),
        };
        let (name, party) = match text.split_once('@') {
            Some((name, party)) => (name, Some(party)),
            None => (text, None),
        };
        let in_recording = &recording.header.name;
        let scenes: Vec<_> = recording.scenes().into_iter().map(|scene| scene.id).collect();
        if let Some(scene) = scene.filter(|scene| !scenes.iter().any(|known| known == scene)) {
            let known = scenes.join(", ");
            return Err(format!("no scene `{scene}` in `{in_recording}`; there are {known}"));
        }
        let parties: BTreeSet<_> = recording.moments.iter().map(|moment| &*moment.node).collect();
        if let Some(party) = party.filter(|party| !parties.contains(party)) {
            let lanes = recording.header.lanes.iter().map(|lane| &*lane.id);
            let known = lanes.collect::<Vec<_>>().join(", ");
            return Err(format!("no party `{party}` in `{in_recording}`; there are {known}"));
        }
        Ok(Self { name, party, scene })
    }

    /// Whether a moment is where this asks for.
    pub fn is_place_of(&self, moment: &Moment) -> bool {
        self.party.is_none_or(|party| party == moment.node)
            && self.scene.is_none_or(|scene| scene == moment.scene)
    }
}

/// The moments of a recording under their names.
pub struct Names<'a> {
    recording: &'a Recording,
    /// The name of each moment.
    names: Vec<Option<String>>,
}

impl<'a> Names<'a> {
    /// Those of this recording.
    pub fn of(recording: &'a Recording) -> Self {
        let mut methods = BTreeMap::new();
        let names = recording.moments.iter().map(|moment| name(moment, &mut methods)).collect();
        Self { recording, names }
    }

    /// The name of a moment, if it has one.
    pub fn name(&self, moment: &Moment) -> Option<&str> {
        self.names.get(moment.n)?.as_deref()
    }

    /// The moments that are meant: those of the story or, if there are none, copies and housekeeping.
    ///
    /// # Errors
    /// If there are none at all; the error lists what there is.
    pub fn find(&self, spec: &Spec) -> Result<Vec<&'a Moment>, String> {
        let moments = &self.recording.moments;
        let named = |moment: &&Moment| self.name(moment) == Some(spec.name);
        let here: Vec<_> =
            moments.iter().filter(|moment| spec.is_place_of(moment)).filter(named).collect();
        let story: Vec<_> =
            here.iter().copied().filter(|moment| !moment.background && !moment.again).collect();
        if !story.is_empty() {
            return Ok(story);
        }
        if !here.is_empty() {
            return Ok(here);
        }
        let elsewhere: BTreeSet<_> = moments.iter().filter(named).map(place).collect();
        let recording = &self.recording.header.name;
        if !elsewhere.is_empty() {
            let there = listed(elsewhere);
            return Err(format!("`{}` of `{recording}` is at {there}", spec.name));
        }
        let there = moments.iter().filter(|moment| spec.is_place_of(moment));
        let there = listed(there.filter_map(|moment| self.name(moment)).collect());
        Err(format!("nothing is called `{}` in `{recording}`; there are {there}", spec.name))
    }

    /// The one moment that is meant.
    ///
    /// # Errors
    /// If there is none, or several that say different things.
    pub fn one(&self, spec: &Spec) -> Result<&'a Moment, String> {
        let found = self.find(spec)?;
        let first = found[0];
        let same = |moment: &&Moment| {
            place(moment) == place(first) && compare::line(moment) == compare::line(first)
        };
        if found.iter().all(same) {
            return Ok(first);
        }
        let places: BTreeSet<_> = found.iter().map(|moment| place(moment)).collect();
        Err(match places.len() {
            1 => format!("`{}` is several things at {}", spec.name, place(first)),
            _ => format!("which `{}`? It is at {}", spec.name, listed(places)),
        })
    }

    /// A number: `spec` names the moment, or is `setting`; `field` names the number.
    ///
    /// # Errors
    /// If there is no such number, or there are several.
    pub fn number(&self, spec: &str, field: &str) -> Result<u64, String> {
        if spec == "setting" {
            let setting = serde_json::to_value(&self.recording.header.setting);
            let mut numbers = Numbers::default();
            numbers.json(&setting.expect("a setting is JSON"), "");
            return numbers.one(field).map_err(|problem| format!("`setting`: {problem}"));
        }
        let spec = Spec::read(self.recording, spec)?;
        let mut found: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        let mut moments = self.find(&spec)?;
        if spec.name == "balances" {
            // What a party owns in the end.
            let last: BTreeMap<_, _> = moments.into_iter().map(|m| (&*m.node, m)).collect();
            moments = last.into_values().collect();
        }
        for moment in moments {
            let number = Numbers::of(moment)
                .one(field)
                .map_err(|problem| format!("`{}` at {}: {problem}", spec.name, place(moment)))?;
            found.entry(number).or_default().insert(place(moment));
        }
        let mut numbers = found.iter();
        match (numbers.next(), numbers.next()) {
            (Some((number, _)), None) => Ok(*number),
            _ => {
                let each = |(number, places): (&u64, &BTreeSet<String>)| {
                    format!("{number} at {}", listed(places.clone()))
                };
                let all = found.iter().map(each).collect::<Vec<_>>().join("; ");
                Err(format!("which `{}`? Its `{field}` is {all}", spec.name))
            }
        }
    }
}

/// Where a moment is, as [`Spec`] reads it.
fn place(moment: &Moment) -> String {
    format!("`@{}/{}`", moment.node, moment.scene)
}

fn listed(names: BTreeSet<impl AsRef<str>>) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

fn name(moment: &Moment, methods: &mut BTreeMap<String, String>) -> Option<String> {
    Some(match &moment.what {
        What::Wire { message, .. }
        | What::Onion { message, .. }
        | What::OnionSent { message, .. } => message.clone(),
        What::Lsps { json, .. } => {
            let id = json["id"].as_str().unwrap_or_default().to_owned();
            match json["method"].as_str() {
                Some(method) => {
                    methods.insert(id, method.to_owned());
                    method.to_owned()
                }
                None => format!("{}.answer", methods.get(&id).map_or("lsps", String::as_str)),
            }
        }
        What::Event { name, .. } => name.clone(),
        What::Htlc { state, .. } => {
            let state = serde_json::to_value(state).expect("a state is JSON");
            format!("htlc.{}", state.as_str().unwrap_or_default())
        }
        What::Lease { state, .. } => format!("lease.{state}"),
        What::Offer { state, .. } => format!("offer.{state}"),
        What::Mailbox { state, .. } => format!("mailbox.{state}"),
        What::Paths { paths, .. } => format!("paths.{paths}"),
        What::Channel { state, .. } => format!("channel.{state}"),
        What::Started { .. } => "started".to_owned(),
        What::Stopped => "stopped".to_owned(),
        What::Connected { .. } => "connected".to_owned(),
        What::Disconnected { .. } => "disconnected".to_owned(),
        What::Broadcast { .. } => "broadcast".to_owned(),
        What::Block { .. } => "block".to_owned(),
        What::Balances { .. } => "balances".to_owned(),
        What::Note { .. } if moment.node == DIRECTOR => "note".to_owned(),
        What::Note { .. } | What::Scene { .. } => return None,
    })
}

/// Numbers, each under all the names around it, outermost first.
#[derive(Default)]
struct Numbers(Vec<(String, u64)>);

impl Numbers {
    fn of(moment: &Moment) -> Self {
        let mut numbers = Self::default();
        let what = serde_json::to_value(&moment.what).expect("a moment is JSON");
        numbers.json(&what, "");
        moment.explained.iter().for_each(|explained| numbers.explained(explained));
        numbers
    }

    fn json(&mut self, value: &Value, path: &str) {
        let below = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        match value {
            Value::Number(number) => {
                self.0.extend(number.as_u64().map(|number| (path.to_owned(), number)));
            }
            // LSPS writes amounts so.
            Value::String(text) => {
                self.0.extend(text.parse().ok().map(|number| (path.to_owned(), number)));
            }
            Value::Array(values) => {
                for (at, value) in values.iter().enumerate() {
                    match value["peer"].as_str() {
                        Some(peer) => self.json(value, &below(peer)),
                        None => self.json(value, &below(&at.to_string())),
                    }
                }
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.json(value, &below(name)));
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn explained(&mut self, explained: &Explained) {
        let mut around = vec![explained.title.as_str()];
        for field in &explained.fields {
            around.truncate(usize::from(field.depth) + 1);
            around.push(&field.name);
            let path = around.join(".");
            self.0.push((format!("{path}.bytes"), field.len as u64));
            self.0.extend(plain_number(&field.value).map(|number| (path, number)));
        }
    }

    /// The number of this name, or whose name ends so.
    fn one(&self, field: &str) -> Result<u64, String> {
        let exactly = self.0.iter().find(|(path, _)| path == field);
        if let Some((_, number)) = exactly {
            return Ok(*number);
        }
        let ends = |path: &str| path.strip_suffix(field).is_some_and(|head| head.ends_with('.'));
        let found: BTreeSet<_> =
            self.0.iter().filter(|(path, _)| ends(path)).map(|(_, number)| *number).collect();
        let told = |wanted: &dyn Fn(&str) -> bool| {
            let all = self.0.iter().filter(|(path, _)| wanted(path));
            listed(all.map(|(path, number)| format!("`{path}` {number}")).collect())
        };
        match (found.first(), found.len()) {
            (Some(number), 1) => Ok(*number),
            (Some(_), _) => Err(format!("which `{field}`? There are {}", told(&ends))),
            (None, _) => {
                // How long each field is would be told of each field.
                let own = |path: &str| path == "bytes" || !path.ends_with(".bytes");
                Err(format!("no number `{field}`; there are {}", told(&own)))
            }
        }
    }
}

/// The number that is all a value says, but for its unit: `72 blocks`, `block 236`.
fn plain_number(value: &str) -> Option<u64> {
    let value = value.strip_prefix("block ").unwrap_or(value);
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let plain = value.starts_with(|c: char| c.is_ascii_digit())
        && unit.chars().all(|c| c.is_ascii_alphabetic());
    if plain { number(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::{Field, Header, Lane};

    fn recording() -> Recording {
        let lines = [
            r#"{"kind":"scene","id":"step-1","title":"Buy"}"#,
            r#"{"kind":"lsps","peer":"a","json":{"id":"1…","method":"lsps2.buy"},"bytes":90}"#,
            r#"{"kind":"lsps","peer":"b","json":{"id":"1…","result":{"fee_msat":"2000000"}},"bytes":91}"#,
            r#"{"kind":"scene","id":"step-2","title":"Pay"}"#,
            r#"{"kind":"wire","peer":"a","message":"update_add_htlc","bytes":1450}"#,
            r#"{"kind":"wire","peer":"b","message":"update_add_htlc","bytes":1463}"#,
            r#"{"kind":"wire","peer":"b","message":"ping","bytes":4}"#,
            r#"{"kind":"balances","onchain_sat":7,"channels":[
                {"peer":"a","capacity_sat":1,"spendable_msat":2,"reserve_msat":3,
                 "receivable_msat":4,"pending_msat":[0,5],"usable":true,"confirmed":true},
                {"peer":"c","capacity_sat":1,"spendable_msat":6,"reserve_msat":3,
                 "receivable_msat":4,"pending_msat":[0,5],"usable":true,"confirmed":true}]}"#,
        ];
        let places = [
            ("step-1", DIRECTOR),
            ("step-1", "b"),
            ("step-1", "a"),
            ("step-2", DIRECTOR),
            ("step-2", "b"),
            ("step-2", "c"),
            ("step-2", "c"),
            ("step-2", "b"),
        ];
        let moments = lines.iter().zip(places).enumerate().map(|(n, (line, (scene, node)))| {
            let mut what: Value = serde_json::from_str(line).unwrap();
            what["n"] = n.into();
            what["scene"] = scene.into();
            what["node"] = node.into();
            what["background"] = line.contains("ping").into();
            serde_json::from_value(what).unwrap()
        });
        let mut moments: Vec<Moment> = moments.collect();
        let field = |at, len, depth, name: &str, value: &str| Field {
            at,
            len,
            depth,
            name: name.to_owned(),
            value: value.to_owned(),
            meaning: String::new(),
            varies: false,
        };
        moments[4].explained = vec![Explained {
            title: "update_add_htlc".to_owned(),
            bytes: String::new(),
            text: false,
            fields: vec![
                field(0, 8, 0, "amount_msat", "98 000 000 msat"),
                field(8, 4, 0, "cltv_expiry", "block 236"),
                field(12, 1438, 0, "hops", ""),
                field(12, 700, 1, "hop 1", ""),
                field(12, 2, 2, "enclen", "46 bytes"),
                field(712, 738, 1, "hop 2", ""),
                field(712, 2, 2, "enclen", "166 bytes"),
                field(714, 2, 2, "features", "bits 17 basic_mpp"),
            ],
        }];
        let lane = |id: &str| Lane { id: id.to_owned(), label: id.to_owned() };
        Recording {
            header: Header {
                name: "try".to_owned(),
                title: String::new(),
                about: String::new(),
                ldk: String::new(),
                setting: BTreeMap::from([("amount_msat".to_owned(), 5.into())]),
                lanes: vec![lane("a"), lane("b"), lane("c")],
            },
            moments,
        }
    }

    #[test]
    fn numbers_are_found_by_moment_and_field() {
        let recording = recording();
        let names = Names::of(&recording);
        for (spec, field, number) in [
            ("setting", "amount_msat", 5),
            ("lsps2.buy", "bytes", 90),
            ("lsps2.buy.answer@a/step-1", "fee_msat", 2_000_000),
            ("update_add_htlc@b", "bytes", 1450),
            ("update_add_htlc@c", "bytes", 1463),
            ("update_add_htlc@b", "amount_msat", 98_000_000),
            ("update_add_htlc@b", "cltv_expiry", 236),
            ("update_add_htlc@b", "hop 2.enclen", 166),
            ("update_add_htlc@b", "hop 2.bytes", 738),
            ("balances", "onchain_sat", 7),
            ("balances@b", "c.spendable_msat", 6),
            ("balances", "capacity_sat", 1),
            ("ping", "bytes", 4),
        ] {
            assert_eq!(names.number(spec, field), Ok(number), "{spec} {field}");
        }
    }

    #[test]
    fn what_is_not_there_or_there_twice_is_an_error_that_says_what_there_is() {
        let recording = recording();
        let names = Names::of(&recording);
        for (spec, field, told) in [
            (
                "update_add_htlc",
                "bytes",
                "which `update_add_htlc`? Its `bytes` is 1450 at `@b/step-2`",
            ),
            ("update_add_htlc@a", "bytes", "is at `@b/step-2`, `@c/step-2`"),
            ("update_add_htlc@d", "bytes", "no party `d` in `try`; there are a, b, c"),
            ("ping/step-3", "bytes", "no scene `step-3` in `try`; there are step-1, step-2"),
            ("open_channel/step-1", "bytes", "there are lsps2.buy, lsps2.buy.answer"),
            (
                "update_add_htlc@b",
                "enclen",
                "which `enclen`? There are `update_add_htlc.hops.hop 1.",
            ),
            ("update_add_htlc@b", "features", "no number `features`; there are `bytes` 1450"),
            ("balances", "spendable_msat", "`channels.a.spendable_msat` 2"),
            ("setting", "payer", "there are `amount_msat` 5"),
        ] {
            let error = names.number(spec, field).unwrap_err();
            assert!(error.contains(told), "{spec} {field}: {error}");
        }
        let one = |text| names.one(&Spec::read(&recording, text).unwrap());
        assert_eq!(one("update_add_htlc@c").unwrap().n, 5);
        assert!(one("update_add_htlc").unwrap_err().contains("It is at `@b/step-2`, `@c/step-2`"));
    }
}
