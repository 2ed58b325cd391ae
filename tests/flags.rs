//! Every flag in `src/data/flags.toml`: its default is LDK's, and what it needs is what the nodes of
//! this guide use.

use lightning::util::config::UserConfig;
use lsps2_async::lsp::open_plan::jit_channel_config;
use lsps2_async::payer::PayerMode;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

#[derive(Deserialize)]
struct Flags {
    flag: Vec<Flag>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    role: Vec<String>,
    kind: Kind,
    name: String,
    default: String,
    needed: String,
    breaks: String,
    link: String,
    value: Option<String>,
    #[serde(default)]
    seen: Vec<String>,
    claim: Option<String>,
    test: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Config,
    Open,
    Accept,
    Call,
}

/// A menu that asks for no less than LDK allows by default.
const LONGEST_DELAY: u32 = 2016;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap()
}

fn flags() -> Vec<Flag> {
    let text = std::fs::read_to_string(root().join("src/data/flags.toml")).unwrap();
    toml::from_str::<Flags>(&text).unwrap().flag
}

/// The fields of a configuration by their path, as `Debug` prints them: no field is typed here.
fn fields(config: &impl Debug) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in format!("{config:#?}").lines().skip(1) {
        let line = line.trim().trim_end_matches(',');
        match line.split_once(": ") {
            Some((name, value)) if value.ends_with(['{', '(', '[']) => path.push(name.to_owned()),
            Some((name, value)) => {
                let name = path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>();
                fields.insert(name.join("."), value.to_owned());
            }
            None if line.starts_with(['}', ')', ']']) => drop(path.pop()),
            // Inside a tuple.
            None => {}
        }
    }
    fields
}

fn used_by(role: &str) -> UserConfig {
    match role {
        "recipient" => node::recipient::user_config(),
        "lsp" => node::lsp::user_config(),
        "payer" => node::payer::user_config(PayerMode::OftenOffline),
        "payer_lsp" => node::payer_lsp::user_config(),
        role => panic!("there is no role {role}"),
    }
}

#[test]
fn a_debug_print_gives_every_field_by_its_path() {
    let fields = fields(&UserConfig::default());
    assert_eq!(fields["enable_htlc_hold"], "false");
    assert_eq!(fields["channel_handshake_config.minimum_depth"], "6");
    assert_eq!(fields["channel_config.forwarding_fee_base_msat"], "1000");
    assert_eq!(fields["reject_inbound_splices"], "true", "after the nested ones, and not in them");
}

#[test]
fn every_flag_is_what_ldk_defaults_to_and_what_our_nodes_use() {
    let default = UserConfig::default();
    for flag in flags() {
        let (name, wanted) = (&flag.name, flag.value.as_ref().unwrap_or(&flag.needed));
        assert!(!flag.role.is_empty(), "{name} is nobody's");
        for role in &flag.role {
            let used = used_by(role);
            let (before, after) = match flag.kind {
                Kind::Config => (fields(&default), fields(&used)),
                Kind::Open => {
                    (fields(&default), fields(&jit_channel_config(&used, LONGEST_DELAY)))
                }
                Kind::Accept => {
                    let overrides = node::recipient::take_less_than_the_onion_says();
                    assert!(overrides.handshake_overrides.is_none());
                    let mut channel = default.channel_config;
                    channel.apply(&overrides.update_overrides.unwrap());
                    (fields(&default.channel_config), fields(&channel))
                }
                Kind::Call => continue,
            };
            assert_eq!(before.get(name), Some(&flag.default), "the default of {name}");
            assert_eq!(after.get(name), Some(wanted), "what our {role} uses for {name}");
        }
    }
}

#[test]
fn what_is_not_configuration_stands_in_the_nodes_sources() {
    for flag in flags() {
        assert_eq!(flag.kind == Kind::Call, !flag.seen.is_empty(), "{}", flag.name);
        for seen in &flag.seen {
            let (file, text) = seen.split_once(": ").expect("file: text");
            let source = std::fs::read_to_string(root().join(file)).unwrap();
            assert!(source.contains(text), "{}: {text:?} does not stand in {file}", flag.name);
        }
    }
}

/// A role whose flags differ from LDK's defaults says so in its table.
#[test]
fn every_flag_our_nodes_set_is_in_the_table() {
    let default = fields(&UserConfig::default());
    let flags = flags();
    for role in ["recipient", "lsp", "payer", "payer_lsp"] {
        let listed = |name: &String, kind| {
            let of_role = |f: &&Flag| f.role.iter().any(|r| r == role) && f.kind == kind;
            flags.iter().filter(of_role).any(|f| f.name == *name)
        };
        let used = used_by(role);
        for (name, value) in fields(&used) {
            assert!(default[&name] == value || listed(&name, Kind::Config), "{role}: {name}");
        }
        if role == "lsp" {
            let before = fields(&used);
            for (name, value) in fields(&jit_channel_config(&used, LONGEST_DELAY)) {
                assert!(before[&name] == value || listed(&name, Kind::Open), "the open: {name}");
            }
        }
    }
}

#[test]
fn every_flag_says_what_breaks_in_one_or_two_sentences_and_links_to_ldk() {
    for flag in flags() {
        let Flag { name, breaks, link, .. } = &flag;
        assert!(breaks.ends_with('.') && breaks.matches(". ").count() <= 1, "{name}: {breaks}");
        assert!(link.starts_with("api:lightning"), "{name}: {link}");
        assert!(flag.claim.as_ref().is_none_or(|id| !id.contains(' ')), "{name}");
        assert!(flag.test.as_ref().is_none_or(|test| test.contains("::")), "{name}");
    }
}
