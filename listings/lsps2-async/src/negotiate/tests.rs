use super::*;
use crate::lease::fixtures::{DAY, VALID_UNTIL, node};
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::LengthLimitedRead;
use lightning_liquidity::lsps0::ser::{LSPSDateTime, LSPSResponseError, RawLSPSMessage};
use std::cell::RefCell;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

const NOW: Duration = Duration::from_secs(1_790_000_000);
const SECOND: Duration = Duration::from_secs(1);
const SCID: u64 = 0x0012_3400_0056_0007;
const PAYMENT: u64 = 100_000_000;

/// Remembers what was sent. Ids count from 0.
#[derive(Default)]
struct Client {
    sent: RefCell<Vec<Sent>>,
    fails: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Sent {
    GetInfo(PublicKey, Option<String>),
    Buy(PublicKey, Option<u64>, LSPS2OpeningFeeParams),
}

impl Client {
    fn send(&self, message: Sent) -> LSPSRequestId {
        self.sent.borrow_mut().push(message);
        id(self.sent.borrow().len() - 1)
    }
}

impl Lsps2Client for Client {
    fn request_opening_params(&self, lsp: PublicKey, token: Option<String>) -> LSPSRequestId {
        self.send(Sent::GetInfo(lsp, token))
    }

    fn select_opening_params(
        &self,
        lsp: PublicKey,
        size: Option<u64>,
        params: LSPS2OpeningFeeParams,
    ) -> Result<LSPSRequestId, APIError> {
        if self.fails {
            return Err(APIError::APIMisuseError { err: "duplicate".to_owned() });
        }
        Ok(self.send(Sent::Buy(lsp, size, params)))
    }
}

fn id(n: usize) -> LSPSRequestId {
    LSPSRequestId(n.to_string())
}

fn policy() -> NegotiationPolicy {
    NegotiationPolicy {
        payment_size_msat: PAYMENT,
        fixed_size: false,
        max_fee_msat: 3_000_000,
        min_validity: DAY,
        our_to_self_delay: 144,
        trust_model: TrustModel::ClientTrustsLsp,
        timeout: Duration::from_secs(30),
        token: Some("coupon".to_owned()),
    }
}

fn entry(min_fee_msat: u64, proportional: u32) -> LSPS2OpeningFeeParams {
    LSPS2OpeningFeeParams {
        min_fee_msat,
        proportional,
        valid_until: LSPSDateTime::new_from_duration_since_epoch(VALID_UNTIL),
        min_lifetime: 1_008,
        max_client_to_self_delay: 2_016,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: 1_000_000_000,
        promise: "a".repeat(512),
    }
}

fn until(params: LSPS2OpeningFeeParams, date: &str) -> LSPS2OpeningFeeParams {
    LSPS2OpeningFeeParams { valid_until: LSPSDateTime::from_str(date).unwrap(), ..params }
}

fn menu_event(n: usize, opening_fee_params_menu: Vec<LSPS2OpeningFeeParams>) -> LSPS2ClientEvent {
    let (request_id, counterparty_node_id) = (id(n), node(1));
    LSPS2ClientEvent::OpeningParametersReady {
        request_id,
        counterparty_node_id,
        opening_fee_params_menu,
    }
}

fn scid_event(n: usize, intercept_scid: u64, cltv_expiry_delta: u32) -> LSPS2ClientEvent {
    let (request_id, counterparty_node_id) = (id(n), node(1));
    LSPS2ClientEvent::InvoiceParametersReady {
        request_id,
        counterparty_node_id,
        intercept_scid,
        cltv_expiry_delta,
        payment_size_msat: None,
    }
}

fn failure(request: Request, n: usize, code: i32, message: &str) -> LSPS2ClientEvent {
    let (request_id, counterparty_node_id) = (id(n), node(1));
    let error = LSPSResponseError { code, message: message.to_owned(), data: None };
    match request {
        Request::GetInfo => {
            LSPS2ClientEvent::GetInfoFailed { request_id, counterparty_node_id, error }
        }
        Request::Buy => {
            LSPS2ClientEvent::BuyRequestFailed { request_id, counterparty_node_id, error }
        }
    }
}

/// A negotiation that has sent `lsps2.get_info` (0).
fn begun(policy: NegotiationPolicy) -> (Client, Negotiation) {
    let client = Client::default();
    let negotiation = Negotiation::begin(&client, node(1), policy, NOW);
    (client, negotiation)
}

/// A negotiation that has sent `lsps2.buy` (1).
fn bought(policy: NegotiationPolicy) -> (Client, Negotiation) {
    let (client, mut negotiation) = begun(policy);
    let progress = negotiation.on_event(&client, &menu_event(0, vec![entry(2_000, 0)]), NOW);
    assert_eq!(progress, Progress::Waiting);
    (client, negotiation)
}

fn failed(progress: Progress) -> NegotiateError {
    match progress {
        Progress::Done(Err(error)) => error,
        Progress::NotMine | Progress::Waiting | Progress::Done(Ok(_)) => panic!("{progress:?}"),
    }
}

#[test]
fn a_lease_is_bought_in_two_requests() {
    for fixed_size in [false, true] {
        let (client, mut negotiation) = bought(NegotiationPolicy { fixed_size, ..policy() });
        let size = fixed_size.then_some(PAYMENT);
        assert_eq!(
            *client.sent.borrow(),
            [
                Sent::GetInfo(node(1), Some("coupon".to_owned())),
                Sent::Buy(node(1), size, entry(2_000, 0)),
            ]
        );
        let lease = Lease {
            id: LeaseId { lsp_node_id: node(1), intercept_scid: SCID },
            cltv_expiry_delta: 144,
            opening_fee_params: (&entry(2_000, 0)).into(),
            payment_size_msat: size,
            trust_model: TrustModel::ClientTrustsLsp,
        };
        let progress = negotiation.on_event(&client, &scid_event(1, SCID, 144), NOW);
        assert_eq!(progress, Progress::Done(Ok(lease)));
        assert_eq!(
            negotiation.on_event(&client, &scid_event(1, SCID, 144), NOW),
            Progress::NotMine
        );
        assert_eq!(negotiation.check_timeout(NOW + DAY), None);
    }
}

#[test]
fn what_others_wait_for_is_left_to_them() {
    let (client, mut negotiation) = begun(policy());
    let menu = menu_event(0, vec![entry(2_000, 0)]);
    let from_other_lsp = LSPS2ClientEvent::OpeningParametersReady {
        request_id: id(0),
        counterparty_node_id: node(2),
        opening_fee_params_menu: vec![entry(2_000, 0)],
    };
    let not_mine = [
        from_other_lsp,
        menu_event(1, vec![]),
        scid_event(0, SCID, 144),
        failure(Request::Buy, 0, 201, ""),
        failure(Request::GetInfo, 1, 200, ""),
    ];
    for event in not_mine {
        assert_eq!(negotiation.on_event(&client, &event, NOW), Progress::NotMine);
    }
    assert_eq!(negotiation.on_event(&client, &menu, NOW), Progress::Waiting);
    for event in [menu, scid_event(0, SCID, 144), failure(Request::GetInfo, 1, 200, "")] {
        assert_eq!(negotiation.on_event(&client, &event, NOW), Progress::NotMine);
    }
}

#[test]
fn menus_are_checked_as_blip_52_asks() {
    use NegotiateError::{EmptyMenu, MenuExpired, MenuNotOrdered, PromiseTooLong};
    let long = LSPS2OpeningFeeParams { promise: "a".repeat(513), ..entry(2, 2) };
    let escaped = LSPS2OpeningFeeParams { promise: "\"".repeat(257), ..entry(1, 1) };
    let old = until(entry(2, 2), "2020-01-01T00:00:00Z");
    let before_epoch = LSPS2OpeningFeeParams {
        valid_until: LSPSDateTime(
            LSPSDateTime::new_from_duration_since_epoch(Duration::ZERO).0 - DAY,
        ),
        ..entry(2, 2)
    };
    for (menu, verdict) in [
        (vec![], Err(EmptyMenu)),
        (vec![entry(1, 1)], Ok(())),
        (vec![entry(1, 1), entry(2, 1), entry(2, 2), entry(3, 3)], Ok(())),
        (vec![entry(1, 1), entry(1, 1)], Err(MenuNotOrdered { entry: 1 })),
        (vec![entry(1, 1), entry(2, 1), entry(1, 2)], Err(MenuNotOrdered { entry: 2 })),
        (vec![entry(1, 2), entry(2, 1)], Err(MenuNotOrdered { entry: 1 })),
        (vec![entry(1, 1), long], Err(PromiseTooLong { entry: 1 })),
        (vec![escaped], Err(PromiseTooLong { entry: 0 })),
        (vec![old.clone()], Err(MenuExpired)),
        (vec![before_epoch], Err(MenuExpired)),
        (vec![entry(1, 1), old], Ok(())),
    ] {
        assert_eq!(check_menu(&menu, NOW), verdict);
    }
    assert_eq!(check_menu(&[entry(1, 1)], VALID_UNTIL - SECOND), Ok(()));
    assert_eq!(check_menu(&[entry(1, 1)], VALID_UNTIL), Err(MenuExpired));
}

#[test]
fn the_cheapest_suitable_entry_is_chosen() {
    let near = until(entry(1, 1), "2026-09-22T00:00:00Z");
    let strict = LSPS2OpeningFeeParams { max_client_to_self_delay: 143, ..entry(1, 1) };
    let small = LSPS2OpeningFeeParams { max_payment_size_msat: PAYMENT - 1, ..entry(1, 1) };
    let large = LSPS2OpeningFeeParams { min_payment_size_msat: PAYMENT + 1, ..entry(1, 1) };
    let long = until(entry(2_000, 10), "2030-01-01T00:00:00Z");
    for (menu, chosen) in [
        (vec![entry(1_000, 0), entry(2_000, 0)], 0),
        (vec![near, entry(2_000, 0)], 1),
        (vec![strict, entry(2_000, 0)], 1),
        (vec![small, entry(2_000, 0)], 1),
        (vec![large, entry(2_000, 0)], 1),
        // Equal fees for this payment: the one that holds longer.
        (vec![entry(2_000, 0), long], 1),
        // 3 % of the payment is exactly the maximum.
        (vec![entry(1, 30_000)], 0),
    ] {
        assert_eq!(choose(&menu, &policy(), NOW), Ok(&menu[chosen]));
    }
}

#[test]
fn every_reason_to_pass_an_entry_over_is_named() {
    let cases = [
        (
            entry(3_000_001, 0),
            Unsuitable::FeeTooHigh { fee_msat: 3_000_001, max_fee_msat: 3_000_000 },
        ),
        (
            entry(1, u32::MAX),
            Unsuitable::FeeTooHigh { fee_msat: 429_496_729_500, max_fee_msat: 3_000_000 },
        ),
        (
            until(entry(1, 1), "2026-09-22T00:00:00Z"),
            Unsuitable::ValidityTooShort { left_secs: 35_200, wanted_secs: 86_400 },
        ),
        (
            LSPS2OpeningFeeParams { max_client_to_self_delay: 143, ..entry(1, 1) },
            Unsuitable::ToSelfDelay { allowed: 143, ours: 144 },
        ),
        (
            LSPS2OpeningFeeParams { min_payment_size_msat: PAYMENT + 1, ..entry(1, 1) },
            Unsuitable::PaymentSize { min_msat: PAYMENT + 1, max_msat: 1_000_000_000 },
        ),
    ];
    for (params, reason) in &cases {
        let passed_over = PassedOver(vec![reason.clone()]);
        let error = NegotiateError::NothingSuitable(passed_over);
        assert_eq!(choose(std::slice::from_ref(params), &policy(), NOW), Err(error));
    }
    let menu: Vec<_> = cases.into_iter().map(|(params, _)| params).collect();
    let said = choose(&menu, &policy(), NOW).unwrap_err().to_string();
    assert!(
        said.contains("entry 0: its fee is 3000001 msat") && said.ends_with("and 1 more"),
        "{said}"
    );

    let overflow =
        NegotiationPolicy { payment_size_msat: u64::MAX, max_fee_msat: u64::MAX, ..policy() };
    let endless = LSPS2OpeningFeeParams { max_payment_size_msat: u64::MAX, ..entry(1, 2) };
    let error = NegotiateError::NothingSuitable(PassedOver(vec![Unsuitable::FeeOverflow]));
    assert_eq!(choose(&[endless], &overflow, NOW), Err(error));

    let tiny = NegotiationPolicy { payment_size_msat: 2_000, ..policy() };
    let all = Unsuitable::FeeTooHigh { fee_msat: 2_000, max_fee_msat: 1_999 };
    let error = NegotiateError::NothingSuitable(PassedOver(vec![all]));
    assert_eq!(choose(&[entry(2_000, 0)], &tiny, NOW), Err(error), "the fee eats the payment");
}

#[test]
fn validity_has_a_sharp_edge() {
    let menu = [entry(1, 1)];
    assert!(choose(&menu, &policy(), VALID_UNTIL - DAY).is_ok());
    assert!(choose(&menu, &policy(), VALID_UNTIL - DAY + SECOND).is_err());
    let careless = NegotiationPolicy { min_validity: Duration::ZERO, ..policy() };
    assert!(choose(&menu, &careless, VALID_UNTIL - SECOND).is_ok());
    assert!(choose(&menu, &careless, VALID_UNTIL).is_err());
}

#[test]
fn fractions_of_a_second_are_dropped() {
    let params = until(entry(1, 1), "2023-02-23T08:47:30.511Z");
    let terms = crate::lease::OpeningFeeParams::from(&params);
    assert_eq!(terms.valid_until, Duration::from_secs(1_677_142_050));
}

#[test]
fn a_bad_menu_ends_the_negotiation() {
    let (client, mut negotiation) = begun(policy());
    let progress = negotiation.on_event(&client, &menu_event(0, vec![]), NOW);
    assert_eq!(failed(progress), NegotiateError::EmptyMenu);
    assert_eq!(client.sent.borrow().len(), 1, "nothing was bought");
    let again = menu_event(0, vec![entry(1, 1)]);
    assert_eq!(negotiation.on_event(&client, &again, NOW), Progress::NotMine);
}

#[test]
fn unusable_invoice_parameters_are_refused() {
    for (scid, delta, error) in [
        (0, 144, Some(NegotiateError::NoScid)),
        (SCID, 47, Some(NegotiateError::CltvExpiryDelta(47))),
        (SCID, 48, None),
        (SCID, 1_007, None),
        (SCID, 1_008, Some(NegotiateError::CltvExpiryDelta(1_008))),
        (SCID, 65_536 + 48, Some(NegotiateError::CltvExpiryDelta(65_584))),
    ] {
        let (client, mut negotiation) = bought(policy());
        match negotiation.on_event(&client, &scid_event(1, scid, delta), NOW) {
            Progress::Done(outcome) => assert_eq!(outcome.err(), error),
            progress @ (Progress::NotMine | Progress::Waiting) => panic!("{progress:?}"),
        }
    }
}

#[test]
fn every_error_code_has_its_meaning() {
    use LspRefusal::*;
    let both = [
        (1, ClientRejected),
        (-32_700, ParseError),
        (-32_600, InvalidRequest),
        (-32_601, MethodNotFound),
        (-32_602, InvalidParams),
        (-32_603, InternalError),
        (4_711, Other(4_711)),
    ];
    let get_info = [(200, UnrecognizedOrStaleToken), (201, Other(201)), (202, Other(202))];
    for (code, reason) in both.iter().chain(&get_info).copied() {
        let (client, mut negotiation) = begun(policy());
        let event = failure(Request::GetInfo, 0, code, "no");
        let error = failed(negotiation.on_event(&client, &event, NOW));
        assert_eq!(error, NegotiateError::Refused { reason, said: "no".to_owned() });
    }
    let buy = [
        (200, Other(200)),
        (201, InvalidOpeningFeeParams),
        (202, PaymentSizeTooSmall),
        (203, PaymentSizeTooLarge),
    ];
    for (code, reason) in both.iter().chain(&buy).copied() {
        let (client, mut negotiation) = bought(policy());
        let error =
            failed(negotiation.on_event(&client, &failure(Request::Buy, 1, code, "no"), NOW));
        assert_eq!(error, NegotiateError::Refused { reason, said: "no".to_owned() });
        assert!(error.to_string().ends_with("(it says: no)"), "{error}");
    }
}

#[test]
fn the_words_of_an_lsp_are_cut_and_cleaned() {
    let (client, mut negotiation) = begun(policy());
    let rude = format!("a\u{1b}[2J\n\u{202e}b{}", "é".repeat(60_000));
    let event = failure(Request::GetInfo, 0, 200, &rude);
    let error = failed(negotiation.on_event(&client, &event, NOW));
    let NegotiateError::Refused { said, .. } = error else { panic!("{error}") };
    assert_eq!(said, format!("a[2Jb{}", "é".repeat(251)));
}

#[test]
fn silence_ends_a_negotiation() {
    for (client, mut negotiation) in [begun(policy()), bought(policy())] {
        let deadline = NOW + Duration::from_secs(30);
        assert_eq!(negotiation.check_timeout(deadline - SECOND), None);
        assert_eq!(negotiation.check_timeout(Duration::ZERO), None, "the clock went back");
        let error = NegotiateError::TimedOut { after_secs: 30 };
        assert_eq!(negotiation.check_timeout(deadline), Some(error));
        assert_eq!(negotiation.check_timeout(deadline), None);
        let late = [menu_event(0, vec![entry(1, 1)]), scid_event(1, SCID, 144)];
        for event in late {
            assert_eq!(negotiation.on_event(&client, &event, deadline), Progress::NotMine);
        }
    }
}

#[test]
fn a_request_that_is_not_sent_ends_it_too() {
    let client = Client { fails: true, ..Client::default() };
    let mut negotiation = Negotiation::begin(&client, node(1), policy(), NOW);
    let progress = negotiation.on_event(&client, &menu_event(0, vec![entry(1, 1)]), NOW);
    assert!(matches!(failed(progress), NegotiateError::NotSent(_)));
}

/// Stands for a `LiquidityManager`: sends what it is given, records what it gets.
#[derive(Default)]
struct Manager {
    outbox: Mutex<Vec<(PublicKey, RawLSPSMessage)>>,
    inbox: Mutex<Vec<String>>,
}

impl CustomMessageReader for Manager {
    type CustomMessage = RawLSPSMessage;

    fn read<R: LengthLimitedRead>(
        &self,
        _: u16,
        _: &mut R,
    ) -> Result<Option<RawLSPSMessage>, DecodeError> {
        Ok(None)
    }
}

impl CustomMessageHandler for Manager {
    fn handle_custom_message(
        &self,
        msg: RawLSPSMessage,
        _: PublicKey,
    ) -> Result<(), LightningError> {
        self.inbox.lock().unwrap().push(msg.payload);
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawLSPSMessage)> {
        std::mem::take(&mut *self.outbox.lock().unwrap())
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

struct Wire {
    manager: Arc<Manager>,
    watch: MenuWatch<Arc<Manager>>,
}

impl Wire {
    fn new() -> Self {
        let manager = Arc::new(Manager::default());
        Self { watch: MenuWatch::new(Arc::clone(&manager)), manager }
    }

    fn sends(&self, n: usize, method: &str) {
        let payload =
            format!(r#"{{"jsonrpc":"2.0","id":"{n}","method":"{method}","params":{{}}}}"#);
        self.manager.outbox.lock().unwrap().push((node(1), RawLSPSMessage { payload }));
        assert_eq!(self.watch.get_and_clear_pending_msg().len(), 1);
    }

    fn receives(&self, peer: u8, payload: &str) {
        let msg = RawLSPSMessage { payload: payload.to_owned() };
        self.watch.handle_custom_message(msg, node(peer)).unwrap();
        assert_eq!(self.manager.inbox.lock().unwrap().pop().as_deref(), Some(payload), "passed on");
    }

    fn receives_result(&self, n: usize, result: &str) {
        self.receives(1, &format!(r#"{{"jsonrpc":"2.0","id":"{n}","result":{result}}}"#));
    }
}

const MENU: &str = r#"{"min_fee_msat":"1","proportional":1,"valid_until":"2030-01-01T00:00:00Z",
    "min_lifetime":1,"max_client_to_self_delay":2016,"min_payment_size_msat":"1",
    "max_payment_size_msat":"2","promise":"p""#;
const BUY: &str = r#"{"jit_channel_scid":"1x2x3","lsp_cltv_expiry_delta":144"#;

fn menu_json(extra: &str) -> String {
    format!(r#"{{"opening_fee_params_menu":[{MENU}}},{MENU}{extra}}}]}}"#)
}

/// Runs a negotiation with a watch, over the JSON of its two answers.
fn watched(policy: NegotiationPolicy, menu: &str, buy: &str) -> Progress {
    let wire = Wire::new();
    let client = Client::default();
    let negotiation = Negotiation::begin(&client, node(1), policy, NOW);
    let mut negotiation = negotiation.watched_by(wire.watch.observations());
    wire.sends(0, "lsps2.get_info");
    wire.receives_result(0, menu);
    let event = menu_event(0, vec![entry(2_000, 0)]);
    let progress = negotiation.on_event(&client, &event, NOW);
    if progress != Progress::Waiting {
        return progress;
    }
    wire.sends(1, "lsps2.buy");
    wire.receives_result(1, buy);
    negotiation.on_event(&client, &scid_event(1, SCID, 144), NOW)
}

/// LDK would answer with the same id, in a message that cannot be sent.
#[test]
fn a_message_that_could_not_be_answered_is_dropped() {
    let wire = Wire::new();
    let of = |bytes: usize| format!(r#"{{"id":"{}"}}"#, "7".repeat(bytes - 9));
    wire.receives(1, &of(48 * 1024));
    let msg = RawLSPSMessage { payload: of(48 * 1024 + 1) };
    assert!(wire.watch.handle_custom_message(msg, node(1)).is_err());
    assert!(wire.manager.inbox.lock().unwrap().is_empty(), "handed on");
}

#[test]
fn unknown_fields_end_the_negotiation() {
    let (menu, buy) = (menu_json(""), format!("{BUY}}}"));
    assert!(matches!(watched(policy(), &menu, &buy), Progress::Done(Ok(_))));
    let more = menu_json(r#","ongoing_proportional":0,"setup\u001b_fee":"5""#);
    let fields = vec!["ongoing_proportional".to_owned(), "setup_fee".to_owned()];
    let error = failed(watched(policy(), &more, &buy));
    assert_eq!(error, NegotiateError::UnknownFields(fields));

    let many: String = (0..99).map(|n| format!(r#","{n}":0"#)).collect();
    let NegotiateError::UnknownFields(fields) = failed(watched(policy(), &menu_json(&many), &buy))
    else {
        panic!("fields are missed")
    };
    assert_eq!(fields.len(), 8, "bounded");
}

#[test]
fn the_lease_has_the_trust_model_the_lsp_named() {
    use TrustModel::{ClientTrustsLsp, LspTrustsClient};
    for (flag, accepted, outcome) in [
        ("", ClientTrustsLsp, Ok(LspTrustsClient)),
        (r#","client_trusts_lsp":false"#, ClientTrustsLsp, Ok(LspTrustsClient)),
        (r#","client_trusts_lsp":true"#, ClientTrustsLsp, Ok(ClientTrustsLsp)),
        ("", LspTrustsClient, Ok(LspTrustsClient)),
        (r#","client_trusts_lsp":true"#, LspTrustsClient, Err(NegotiateError::TrustNotGiven)),
    ] {
        let policy = NegotiationPolicy { trust_model: accepted, ..policy() };
        match watched(policy, &menu_json(""), &format!("{BUY}{flag}}}")) {
            Progress::Done(lease) => assert_eq!(lease.map(|lease| lease.trust_model), outcome),
            progress @ (Progress::NotMine | Progress::Waiting) => panic!("{progress:?}"),
        }
    }
}

#[test]
fn an_answer_that_passed_by_the_watch_is_not_believed() {
    let (client, negotiation) = begun(policy());
    let mut negotiation = negotiation.watched_by(Observations::default());
    let event = menu_event(0, vec![entry(2_000, 0)]);
    let progress = negotiation.on_event(&client, &event, NOW);
    assert_eq!(failed(progress), NegotiateError::NotObserved);
}

#[test]
fn only_answers_of_the_peer_that_was_asked_count() {
    let wire = Wire::new();
    let observations = wire.watch.observations();
    wire.receives_result(0, &format!("{BUY}}}"));
    wire.sends(0, "lsps2.buy");
    wire.sends(1, "lsps2.get_info");
    wire.sends(2, "lsps1.get_info");
    assert_eq!(observations.take(&node(1), "0"), None, "not answered yet");

    wire.receives(2, &format!(r#"{{"id":"0","result":{BUY}}}}}"#));
    wire.receives(2, "");
    wire.receives(1, r#"{"id":"0","method":"lsps2.buy","result":{}}"#);
    wire.receives(1, r#"{"id":"0","error":{"code":1,"message":"no"}}"#);
    wire.receives(1, r#"{"id":0,"result":{}}"#);
    for noise in ["[]", "null", "\"id\"", r#"{"id":"0"}"#] {
        wire.receives(1, noise);
    }
    assert_eq!(observations.take(&node(1), "0"), None);

    wire.receives_result(0, &format!(r#"{BUY},"client_trusts_lsp":true}}"#));
    wire.receives_result(2, "{}");
    let trust_model = TrustModel::ClientTrustsLsp;
    assert_eq!(observations.take(&node(2), "0"), None);
    assert_eq!(observations.take(&node(1), "0"), Some(Observed::Buy { trust_model }));
    assert_eq!(observations.take(&node(1), "0"), None, "taken");
    assert_eq!(observations.take(&node(1), "2"), None, "not LSPS2");
}

/// Which of them LDK takes cannot be known here: `unguarded/answers.rs` has the cases.
#[test]
fn answers_that_differ_are_not_believed() {
    let (trusting, not) = (format!(r#"{BUY},"client_trusts_lsp":true}}"#), format!("{BUY}}}"));
    for (first, second, agree) in
        [(&trusting, &trusting, true), (&trusting, &not, false), (&not, &trusting, false)]
    {
        let wire = Wire::new();
        wire.sends(0, "lsps2.buy");
        wire.receives_result(0, first);
        wire.receives_result(0, second);
        let taken = wire.watch.observations().take(&node(1), "0");
        let trust_model = TrustModel::ClientTrustsLsp;
        let seen = if agree { Observed::Buy { trust_model } } else { Observed::Unclear };
        assert_eq!(taken, Some(seen));
    }
    // A third cannot mend it.
    let wire = Wire::new();
    wire.sends(0, "lsps2.buy");
    [&not, &trusting, &trusting].into_iter().for_each(|result| wire.receives_result(0, result));
    assert_eq!(wire.watch.observations().take(&node(1), "0"), Some(Observed::Unclear));
}

#[test]
fn what_is_no_json_makes_every_answer_of_its_peer_unclear() {
    let trailing = format!(r#"{{"id":"0","result":{BUY}}}}}!"#);
    for noise in ["", "{", &"[".repeat(40_000), &trailing] {
        let wire = Wire::new();
        wire.sends(0, "lsps2.buy");
        wire.sends(1, "lsps2.get_info");
        wire.receives(1, noise);
        wire.receives_result(0, &format!("{BUY}}}"));
        for id in ["0", "1"] {
            let taken = wire.watch.observations().take(&node(1), id);
            assert_eq!(taken, Some(Observed::Unclear), "{noise:.40}");
        }
    }
}

#[test]
fn what_is_not_written_as_blip_52_has_it_is_unclear() {
    let (menu, buy) = (menu_json(""), format!("{BUY}}}"));
    let list = format!(r#"[[{MENU},"ongoing_proportional":7}}]]"#);
    let entries = r#"{"opening_fee_params_menu":[["1",1,"2030-01-01T00:00:00Z",1,1,"1","2","p"]]}"#;
    for result in [list.as_str(), entries, "{}", "null", r#"{"opening_fee_params_menu":{}}"#] {
        let error = failed(watched(policy(), result, &buy));
        assert_eq!(error, NegotiateError::Unclear, "{result}");
    }
    let flag = format!(r#"{BUY},"client_trusts_lsp":1}}"#);
    for result in [r#"["1x2x3",144,true]"#, "null", "7", &flag] {
        let error = failed(watched(policy(), &menu, result));
        assert_eq!(error, NegotiateError::Unclear, "{result}");
    }
}

#[test]
fn the_watch_forgets_the_oldest_of_our_requests() {
    let wire = Wire::new();
    for n in 0..65 {
        wire.sends(n, "lsps2.buy");
        wire.receives_result(n, "{}");
    }
    let observations = wire.watch.observations();
    assert_eq!(observations.take(&node(1), "0"), None);
    assert!(observations.take(&node(1), "1").is_some());
    assert!(observations.take(&node(1), "64").is_some());
}

#[test]
fn the_watch_is_a_handler_owned_or_shared() {
    fn is_handler(_: &impl CustomMessageHandler<CustomMessage = RawLSPSMessage>) {}
    let wire = Wire::new();
    is_handler(&wire.watch);
    is_handler(&Arc::new(wire.watch));
}
