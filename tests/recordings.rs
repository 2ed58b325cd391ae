//! Every recording that the book shows is played again, and is still what the nodes do.

use guide::record;
use recording::entry::{DIRECTOR, What};
use recording::{Recording, compare};
use regtest::Chain;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Plays a scenario and compares; the panic shows how the run differs.
async fn played_again(name: &str) {
    let scenario = record::find(name).unwrap();
    let difference = record::check(&root(), &scenario, Chain::embedded()).await.unwrap();
    assert!(
        difference.is_empty(),
        "the nodes do something else than the book shows. If that is right, \
         `cargo run -- record {name}` writes it anew; look at what changed:\n{difference}"
    );
}

macro_rules! recordings {
    ($($test: ident $name: literal)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                played_again($name).await;
            }
        )*

        /// A scenario without a test, a file without a scenario: neither would be noticed.
        #[test]
        fn every_scenario_is_played_and_kept() {
            let scenarios: BTreeSet<_> =
                record::scenarios().iter().map(|scenario| scenario.name.to_owned()).collect();
            assert_eq!(scenarios, BTreeSet::from([$($name.to_owned()),*]), "tests below");
            let files: BTreeSet<_> = kept().into_iter().map(|kept| kept.header.name).collect();
            assert_eq!(scenarios, files, "files in tests/recorded");
        }
    };
}

recordings! {
    flow "flow"
    lsp_trusts_client "lsp-trusts-client"
    again "again"
    bolt11 "bolt11"
    fail_payer_lsp_restarts "fail-payer-lsp-restarts"
    fail_no_lease "fail-no-lease"
    fail_too_many_leases "fail-too-many-leases"
    fail_purchase "fail-purchase"
    fail_server_refuses "fail-server-refuses"
    fail_underpaying_off "fail-underpaying-off"
    fail_over_skim "fail-over-skim"
    fail_htlc_maximum "fail-htlc-maximum"
    fail_channel_refused "fail-channel-refused"
    fail_unbought_channel "fail-unbought-channel"
    fail_recipient_vanishes "fail-recipient-vanishes"
    fail_private_forward "fail-private-forward"
    fail_delta_demanded "fail-delta-demanded"
    fail_second_skim "fail-second-skim"
    fail_rounded_up "fail-rounded-up"
    fail_two_payers "fail-two-payers"
    fail_unpaid_channel "fail-unpaid-channel"
    fail_unfunded_channel "fail-unfunded-channel"
    fail_below_minimum "fail-below-minimum"
    fail_not_intercepted "fail-not-intercepted"
    fail_long_recipient_id "fail-long-recipient-id"
    fail_lease_expired "fail-lease-expired"
    fail_client_away "fail-client-away"
    fail_not_held "fail-not-held"
    fail_private_channel "fail-private-channel"
    fail_held_too_long "fail-held-too-long"
    fail_never_released "fail-never-released"
    fail_dust "fail-dust"
    fail_lsp_restarts "fail-lsp-restarts"
    fail_no_coins "fail-no-coins"
    fail_part_missing "fail-part-missing"
    fail_paid_in_parts "fail-paid-in-parts"
    fail_lsp_restarts_with_mail "fail-lsp-restarts-with-mail"
    fail_one_lsp "fail-one-lsp"
    fail_probe "fail-probe"
    fail_stripped "fail-stripped"
    fail_skim_without_lease "fail-skim-without-lease"
    fail_stale_invoice "fail-stale-invoice"
    fail_clock "fail-clock"
    fail_lease_over "fail-lease-over"
    fail_scid_unknown "fail-scid-unknown"
    fail_under_minimum "fail-under-minimum"
    fail_fee_not_below_payment "fail-fee-not-below-payment"
    fail_over_maximum "fail-over-maximum"
    fail_larger_than_channel "fail-larger-than-channel"
    fail_mpp_lsp_trusts "fail-mpp-lsp-trusts"
    fail_part_after_open "fail-part-after-open"
    fail_funding_refused "fail-funding-refused"
    fail_funding_refused_lsp_trusts "fail-funding-refused-lsp-trusts"
    fail_funding_reorg "fail-funding-reorg"
}

/// All files, each of which bears the name of its recording.
fn kept() -> Vec<Recording> {
    let folder = root().join("tests/recorded");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let recordings = files.filter(|file| file.extension().is_some_and(|e| e == "jsonl"));
    let read = |file: PathBuf| {
        let recording = Recording::read(&file).unwrap();
        assert_eq!(file, record::file(&root(), &recording.header.name));
        recording
    };
    recordings.map(read).collect()
}

#[test]
fn every_recording_is_of_this_ldk_and_about_known_parties() {
    let versions = ::book::Versions::read(&root()).unwrap();
    for recording in kept() {
        let name = &recording.header.name;
        assert_eq!(Some(&*recording.header.ldk), versions.of("lightning"), "{name}");
        for moment in &recording.moments {
            let lanes = &recording.header.lanes;
            let known = lanes.iter().any(|lane| lane.id == moment.node) || moment.node == DIRECTOR;
            assert!(known, "{name}: {} has no lane", moment.node);
        }
        assert!(matches!(recording.moments[0].what, What::Scene { .. }), "{name}");
    }
}

/// Where LDK does not open an onion, nothing is told of what is in it.
#[test]
fn every_message_is_explained_and_every_onion_that_ldk_opens() {
    let mut closed = Vec::new();
    for recording in kept() {
        let name = &*recording.header.name;
        for moment in &recording.moments {
            let titles = moment.explained.iter().map(|layer| &*layer.title);
            closed
                .extend(titles.filter(|t| t.starts_with("not explained")).map(|_| name.to_owned()));
            if matches!(&moment.what, What::Wire { message, .. } if message == "update_add_htlc") {
                let outer = moment.explained.first();
                let fields = outer.map_or(&[][..], |outer| &outer.fields);
                let amount = fields.iter().find(|field| field.name == "amount_msat");
                let amount = amount.unwrap_or_else(|| panic!("{name}: {moment:?}"));
                assert!(amount.value.ends_with(" msat"), "{name}: {amount:?}");
            }
        }
    }
    // Its HTLC is smaller than the path of the LSP's hop allows.
    assert_eq!(closed, ["fail-dust"]);
}

/// A comparison that cannot fail proves nothing.
#[test]
fn a_moment_more_or_less_or_other_is_a_readable_difference() {
    let kept = Recording::read(&record::file(&root(), "flow")).unwrap();
    assert_eq!(compare::difference(&kept, &kept), "");
    let at = |name: &str| {
        let is_it = |what: &What| matches!(what, What::Wire { message, .. } if message == name);
        kept.moments.iter().position(|moment| is_it(&moment.what)).unwrap()
    };

    let mut less = kept.clone();
    less.moments.remove(at("update_add_htlc"));
    let shown = compare::difference(&kept, &less);
    assert!(shown.contains("scene step-4, messages payer → payer-lsp"), "{shown}");
    assert!(shown.contains("-wire bytes=") && shown.contains("message=update_add_htlc"), "{shown}");
    assert!(shown.lines().count() < 60, "{shown}");

    let mut other = kept.clone();
    let Some(What::Htlc { skimmed_fee_msat, .. }) = other
        .moments
        .iter_mut()
        .map(|moment| &mut moment.what)
        .find(|what| matches!(what, What::Htlc { skimmed_fee_msat: 1.., .. }))
    else {
        panic!("no skim")
    };
    *skimmed_fee_msat += 1;
    let shown = compare::difference(&kept, &other);
    assert!(shown.contains("skimmed_fee_msat=2000001"), "{shown}");
}
