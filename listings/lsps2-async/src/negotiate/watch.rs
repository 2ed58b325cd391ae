//! What LDK drops from an LSP's answers, kept for the negotiation.

use super::error::printable;
use crate::lease::TrustModel;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{DecodeError, ErrorAction, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::Level;
use lightning::util::ser::LengthLimitedRead;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The fields LDK 0.3.0-rc3 reads, and sends back in `lsps2.buy`.
///
/// A proposed revision of bLIP-52 adds `ongoing_proportional`. LDK would drop it, so it counts as
/// unknown: the terms could not be copied verbatim, and later payments would be skimmed as well.
const KNOWN_FIELDS: [&str; 8] = [
    "min_fee_msat",
    "proportional",
    "valid_until",
    "min_lifetime",
    "max_client_to_self_delay",
    "min_payment_size_msat",
    "max_payment_size_msat",
    "promise",
];

/// How many requests are remembered. Only our own requests take a place.
const MAX_REQUESTS: usize = 64;
/// How many unknown field names are kept of one menu.
const MAX_FIELDS: usize = 8;

/// The longest LSPS message that is handed on, in bytes. LDK puts the id of a request into its answer
/// whatever its length, and an answer of more than 65 533 bytes cannot be sent: LDK drops it, and if it
/// was built with debug assertions, it panics with its connections locked.
const MAX_PAYLOAD: usize = 48 * 1024;

/// What was seen in the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// The names of fields in the menu that LDK does not know.
    Menu { unknown_fields: Vec<String> },
    /// Who must trust whom, as the LSP said.
    Buy { trust_model: TrustModel },
    /// It cannot be said what LDK made of the answer, or of which of several.
    Unclear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    GetInfo,
    Buy,
}

#[derive(Debug)]
struct Asked {
    lsp: PublicKey,
    request_id: String,
    method: Method,
    answer: Option<Observed>,
}

impl Asked {
    fn hears(&mut self, said: Observed) {
        self.answer = match self.answer.take() {
            Some(before) if before != said => Some(Observed::Unclear),
            Some(_) | None => Some(said),
        };
    }
}

/// What a [`MenuWatch`] has seen. A clone shows the same.
#[derive(Clone, Debug, Default)]
pub struct Observations(Arc<Mutex<VecDeque<Asked>>>);

impl Observations {
    /// Takes what was seen in an LSP's answer to a request.
    pub(super) fn take(&self, lsp: &PublicKey, request_id: &str) -> Option<Observed> {
        let mut asked = self.lock();
        let is_it = |a: &Asked| a.lsp == *lsp && a.request_id == request_id && a.answer.is_some();
        let position = asked.iter().position(is_it)?;
        asked.remove(position)?.answer
    }

    fn note_request(&self, lsp: PublicKey, payload: &str) {
        let Some((request_id, method)) = read_request(payload) else {
            return;
        };
        let mut asked = self.lock();
        if asked.len() == MAX_REQUESTS {
            asked.pop_front();
        }
        asked.push_back(Asked { lsp, request_id, method, answer: None });
    }

    /// Which of several answers LDK takes depends on what it could read, and on whether it had ceased
    /// to listen to this peer: they must all say the same.
    fn note_response(&self, lsp: &PublicKey, payload: &str) {
        let message: Option<Value> = serde_json::from_str(payload).ok();
        let mut asked = self.lock();
        let mut pending = asked.iter_mut().filter(|a| a.lsp == *lsp);
        match message.map(read_response) {
            Some(None) => (),
            Some(Some((request_id, result))) => {
                if let Some(asked) = pending.find(|a| a.request_id == request_id) {
                    asked.hears(observe(asked.method, &result));
                }
            }
            // LDK does not look at what follows an answer, and so reads some that are no JSON.
            None => pending.for_each(|asked| asked.hears(Observed::Unclear)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thin [`CustomMessageHandler`] around a `LiquidityManager` that looks at the LSPS2 answers as
/// they came over the wire.
///
/// LDK drops two things from them: fields it does not know, at which bLIP-52 obliges a client to
/// abort, and `client_trusts_lsp`. Give the watch to `PeerManager` in place of the manager, and its
/// [`observations`](Self::observations) to each [`Negotiation`](super::Negotiation). It alters
/// nothing, and remembers only answers to requests that went out through it. A message of more than
/// 48 KiB, which no honest peer sends, it drops.
///
/// ```
/// # use lightning::ln::peer_handler::CustomMessageHandler;
/// # use lightning_liquidity::lsps0::ser::RawLSPSMessage;
/// use lsps2_async::negotiate::{MenuWatch, Observations};
///
/// fn custom_message_handler<H>(liquidity_manager: H) -> (MenuWatch<H>, Observations)
/// where
///     H: CustomMessageHandler<CustomMessage = RawLSPSMessage>,
/// {
///     let watch = MenuWatch::new(liquidity_manager);
///     let observations = watch.observations();
///     (watch, observations)
/// }
/// ```
#[derive(Debug)]
pub struct MenuWatch<H> {
    inner: H,
    observations: Observations,
}

impl<H> MenuWatch<H> {
    /// Wraps a handler, for instance an `Arc<LiquidityManager<..>>`.
    pub fn new(inner: H) -> Self {
        Self { inner, observations: Observations::default() }
    }

    /// What has been seen, for [`Negotiation::watched_by`](super::Negotiation::watched_by).
    pub fn observations(&self) -> Observations {
        self.observations.clone()
    }
}

impl<H: CustomMessageReader> CustomMessageReader for MenuWatch<H> {
    type CustomMessage = H::CustomMessage;

    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Self::CustomMessage>, DecodeError> {
        self.inner.read(message_type, buffer)
    }
}

impl<H> CustomMessageHandler for MenuWatch<H>
where
    H: CustomMessageHandler<CustomMessage = RawLSPSMessage>,
{
    fn handle_custom_message(
        &self,
        msg: RawLSPSMessage,
        sender_node_id: PublicKey,
    ) -> Result<(), LightningError> {
        if msg.payload.len() > MAX_PAYLOAD {
            let err = format!("an LSPS message of {} bytes was dropped", msg.payload.len());
            return Err(LightningError { err, action: ErrorAction::IgnoreAndLog(Level::Info) });
        }
        // Before the manager sees it: its event may be handled at once, on another thread.
        self.observations.note_response(&sender_node_id, &msg.payload);
        self.inner.handle_custom_message(msg, sender_node_id)
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawLSPSMessage)> {
        let messages = self.inner.get_and_clear_pending_msg();
        for (peer, msg) in &messages {
            self.observations.note_request(*peer, &msg.payload);
        }
        messages
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.inner.peer_disconnected(their_node_id);
    }

    fn peer_connected(
        &self,
        their_node_id: PublicKey,
        msg: &Init,
        inbound: bool,
    ) -> Result<(), ()> {
        self.inner.peer_connected(their_node_id, msg, inbound)
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }

    fn provided_init_features(&self, their_node_id: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(their_node_id)
    }
}

fn read_request(payload: &str) -> Option<(String, Method)> {
    let message: Value = serde_json::from_str(payload).ok()?;
    let method = match message.get("method")?.as_str()? {
        "lsps2.get_info" => Method::GetInfo,
        "lsps2.buy" => Method::Buy,
        _ => return None,
    };
    Some((message.get("id")?.as_str()?.to_owned(), method))
}

/// The id and the result of a response; none if LDK would take it for a request or an error.
fn read_response(mut message: Value) -> Option<(String, Value)> {
    if message.get("method").is_some() || message.get("error").is_some() {
        return None;
    }
    let result = message.get_mut("result").map(Value::take)?;
    Some((message.get("id")?.as_str()?.to_owned(), result))
}

fn observe(method: Method, result: &Value) -> Observed {
    let observed = match method {
        Method::GetInfo => {
            unknown_fields(result).map(|unknown_fields| Observed::Menu { unknown_fields })
        }
        Method::Buy => trust_model(result).map(|trust_model| Observed::Buy { trust_model }),
    };
    observed.unwrap_or(Observed::Unclear)
}

/// None if an object is not written as one: LDK also reads a list of an object's values.
fn unknown_fields(result: &Value) -> Option<Vec<String>> {
    let mut unknown = Vec::new();
    for entry in result.get("opening_fee_params_menu")?.as_array()? {
        for name in entry.as_object()?.keys().filter(|name| !KNOWN_FIELDS.contains(&name.as_str()))
        {
            let name = printable(name);
            if unknown.len() < MAX_FIELDS && !unknown.contains(&name) {
                unknown.push(name);
            }
        }
    }
    Some(unknown)
}

/// bLIP-52, "Request JIT Channel": `client_trusts_lsp` is optional and defaults to `false`.
fn trust_model(result: &Value) -> Option<TrustModel> {
    match result.as_object()?.get("client_trusts_lsp").map(Value::as_bool) {
        Some(Some(true)) => Some(TrustModel::ClientTrustsLsp),
        Some(Some(false)) | None => Some(TrustModel::LspTrustsClient),
        Some(None) => None,
    }
}
