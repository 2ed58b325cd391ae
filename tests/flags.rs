//! Every flag in `src/data/flags.toml`: its default is LDK's, and what it needs is what the nodes of
//! this guide use.

use guide::world::{Story, World, channel_is};
use lightning::util::config::UserConfig;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::open_plan::jit_channel_config;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};
use node::{ChannelManager, Node};
use regtest::Chain;
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
                Kind::Open => (fields(&default), fields(&jit_channel_config(&used, LONGEST_DELAY))),
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

// What breaks without a flag: it is taken away from a running node.

fn set(channel_manager: &ChannelManager, change: impl FnOnce(&mut UserConfig)) {
    let mut config = channel_manager.get_current_config();
    change(&mut config);
    channel_manager.set_current_config(config);
}

fn is_failure(entry: &Entry, node: &str, reason: &str) -> bool {
    match &entry.what {
        What::Event { name, detail } => {
            let failed = name == "HTLCHandlingFailed" && detail.to_string().contains(reason);
            entry.node == node && failed
        }
        _ => false,
    }
}

/// What a payer is told. A held payment is not tried again: its attempts are used up. Another is tried
/// again, if two seconds have not passed yet, and the one path is known to fail by then.
fn is_told(payer: PayerMode, entry: &Entry) -> bool {
    let reasons = match payer {
        PayerMode::AlwaysOnline => &["RouteNotFound", "RetriesExhausted"][..],
        PayerMode::OftenOffline => &["RetriesExhausted"],
    };
    match &entry.what {
        What::Event { name, detail } => {
            name == "PaymentFailed" && reasons.iter().any(|reason| detail["reason"] == *reason)
        }
        _ => false,
    }
}

fn is_end(entry: &Entry) -> bool {
    matches!(&entry.what, What::Event { name, .. } if name == "PaymentFailed")
}

fn story() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

/// What the payer can send, in msat: it tells whether a payment came back.
fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels[0].outbound_msat
}

/// The payment fails and is back; with the flag as it should be, the next one is paid.
async fn fails_without_and_works_with(
    payer: PayerMode,
    node: impl Fn(&World) -> &Node,
    change: impl FnOnce(&mut UserConfig),
    see: impl Fn(&Entry) -> bool,
) {
    let story = Story::new(payer, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let (from, before) = (world.transcript.position(), payers_money(&world));
    let right = node(&world).channel_manager().get_current_config();
    set(node(&world).channel_manager(), change);
    world.payer().pay(&offer, 100_000_000).unwrap();
    world.see(from, see).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let entries = world.transcript.since(from);
    let told: Vec<_> = entries.iter().filter(|e| e.node == "payer" && is_end(e)).collect();
    assert!(told.iter().any(|e| is_told(payer, e)), "{told:?}");
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    node(&world).channel_manager().set_current_config(right);
    let from = world.transcript.position();
    world.payer().pay(&offer, 100_000_000).unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_interception_the_next_peer_is_unknown() {
    fails_without_and_works_with(
        PayerMode::OftenOffline,
        |world| world.lsp(),
        |config| config.htlc_interception_flags = 0,
        |e| is_failure(e, "lsp", "UnknownNextPeer"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_interception_an_online_payer_finds_no_route() {
    fails_without_and_works_with(
        PayerMode::AlwaysOnline,
        |world| world.lsp(),
        |config| config.htlc_interception_flags = 0,
        |e| is_failure(e, "lsp", "UnknownNextPeer"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_accepts_no_channels_is_not_paid() {
    fails_without_and_works_with(
        PayerMode::OftenOffline,
        |world| world.recipient(),
        |config| config.accept_inbound_channels = false,
        |e| e.node == "lsp" && channel_is(e, "closed", "recipient"),
    )
    .await;
}

/// LDK asks for the hold only if a channel is live at that moment, and waits online if none is. Such a
/// payment is paid, and the next one is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_stops_holding_fails_what_it_is_given_to_hold() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    set(world.payer_lsp.channel_manager(), |config| config.enable_htlc_hold = false);
    let paid = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Paid, .. });
    let refused = |e: &Entry| is_failure(e, "payer-lsp", "TemporaryNodeFailure");
    let mut tries = 0;
    let (from, before) = loop {
        tries += 1;
        assert!(tries < 5, "no payment was given to the LSP to hold");
        let (from, before) = (world.transcript.position(), payers_money(&world));
        world.payer().pay(&offer, 20_000_000).unwrap();
        let end = world.see(from, |e| refused(e) || e.node == "payer" && paid(e)).await.unwrap();
        if refused(&end) {
            break (from, before);
        }
    };
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let told = |e: &Entry| is_told(PayerMode::OftenOffline, e);
    assert!(world.transcript.since(from).iter().any(told));
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    world.stop().await;
}

/// The channel is twice as large as the payment needs, and still a quarter of it is too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_25_percent_in_flight_the_first_payment_does_not_fit_its_channel() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let (from, before) = (world.transcript.position(), payers_money(&world));
    set(world.recipient().channel_manager(), |config| {
        let handshake = &mut config.channel_handshake_config;
        handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 25;
    });
    world.payer().pay(&offer, 100_000_000).unwrap();
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert!(reason.unwrap().contains("HTLCMaximum"));
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    world.stop().await;
}

/// The holder's flag, set on the phone: it locks nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enable_htlc_hold_on_the_payer_locks_nothing() {
    let mut story = story();
    story.payer = PayerMode::AlwaysOnline;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    set(world.payer().channel_manager(), |config| config.enable_htlc_hold = true);
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    let payer = world.payer().id();
    world.stop_payer().await;
    assert_eq!(world.payer_lsp.locked_htlcs_from(&payer), 0, "the payer went away with it");
    world.start_payer().await.unwrap();
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.recipient_received_msat, 98_000_000, "and had to come back");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcing_lsp_refuses_unannounced_channels_by_default() {
    let world = World::new(Chain::embedded(), story()).await.unwrap();
    set(world.payer_lsp.channel_manager(), |config| {
        config.channel_handshake_limits.force_announced_channel_preference = true;
    });
    let from = world.transcript.position();
    world.payer().open_channel(world.payer_lsp.id(), 1_000_000, false).unwrap();
    let refused = world.see(from, |e| e.node == "payer-lsp" && channel_is(e, "refused", "payer"));
    let What::Channel { reason, .. } = refused.await.unwrap().what else { unreachable!() };
    assert!(reason.unwrap().contains("announcement preference is different"));
    world.stop().await;
}

/// The JIT forward does not need the flag, and the same LSP without it refuses what comes later: an
/// ordinary payment to the wallet over the channel that is now there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_forwards_to_private_channels_only_the_jit_payment_works() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    set(world.lsp().channel_manager(), |config| config.accept_forwards_to_priv_channels = false);
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.mine(6).await.unwrap();

    let ordinary = world.recipient().channel_manager().create_offer_builder().unwrap();
    let ordinary = ordinary.amount_msats(40_000_000).build().unwrap();
    if world.payer.is_none() {
        world.start_payer().await.unwrap();
    }
    let from = world.transcript.position();
    world.payer().pay(&ordinary, 40_000_000).unwrap();
    world.see(from, |e| is_failure(e, "lsp", "PrivateChannelForward")).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();

    set(world.lsp().channel_manager(), |config| config.accept_forwards_to_priv_channels = true);
    let from = world.transcript.position();
    world.payer().pay(&ordinary, 40_000_000).unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.stop().await;
}
