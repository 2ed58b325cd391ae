//! Step 1: the recipient buys LSPS2 parameters ahead of time.
//!
//! ```text
//! begin --get_info--> menu: check_menu, choose --buy--> SCID and delta: Done(Ok(Lease))
//! ```
//!
//! [`Negotiation`] sends through LDK's `LSPS2ClientHandler`, is fed its events and the time, and
//! does no I/O of its own. LDK's client has no time-out, so [`Negotiation::check_timeout`] is one.
//!
//! ```
//! # use bitcoin::secp256k1::PublicKey;
//! # use core::time::Duration;
//! use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
//! use lsps2_async::lease::TrustModel;
//! use lsps2_async::negotiate::{Lsps2Client, Negotiation, NegotiationPolicy, Observations, Progress};
//!
//! fn start(client: &impl Lsps2Client, lsp: PublicKey, seen: Observations, now: Duration) -> Negotiation {
//!     let policy = NegotiationPolicy {
//!         payment_size_msat: 100_000_000,
//!         fixed_size: false,
//!         max_fee_msat: 3_000_000,
//!         min_validity: Duration::from_secs(7 * 24 * 3600),
//!         our_to_self_delay: 144,
//!         trust_model: TrustModel::ClientTrustsLsp,
//!         timeout: Duration::from_secs(30),
//!         token: None,
//!     };
//!     Negotiation::begin(client, lsp, policy, now).watched_by(seen)
//! }
//!
//! fn on_event(n: &mut Negotiation, client: &impl Lsps2Client, event: &LSPS2ClientEvent, now: Duration) {
//!     match n.on_event(client, event, now) {
//!         Progress::NotMine | Progress::Waiting => (),
//!         Progress::Done(Ok(lease)) => println!("keep lease {}", lease.id),
//!         Progress::Done(Err(error)) => eprintln!("no lease: {error}"),
//!     }
//! }
//! ```

mod error;
mod menu;
#[cfg(test)]
mod tests;
mod watch;

pub use error::{LspRefusal, NegotiateError};
pub use menu::{PassedOver, Unsuitable, check_menu, choose};
pub use watch::{MenuWatch, Observations};

use crate::lease::{Lease, LeaseId, TrustModel};
use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use error::Request;
use lightning::ln::channelmanager::MIN_CLTV_EXPIRY_DELTA;
use lightning::routing::router::DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA;
use lightning::sign::EntropySource;
use lightning::util::errors::APIError;
use lightning::util::persist::KVStore;
use lightning_liquidity::lsps0::ser::LSPSRequestId;
use lightning_liquidity::lsps2::client::LSPS2ClientHandler;
use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use watch::Observed;

/// What the wallet accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiationPolicy {
    /// The payment the fee is judged for, in msat.
    pub payment_size_msat: u64,
    /// Whether to buy for exactly that payment ("MPP+fixed-invoice" mode) or for any ("no-MPP+
    /// var-invoice" mode). A static invoice names no amount, so a variable lease suits it.
    pub fixed_size: bool,
    /// The largest opening fee for that payment, in msat.
    pub max_fee_msat: u64,
    /// The shortest acceptable time until `valid_until`, in seconds. A static invoice is refreshed
    /// only online and at most every two hours: choose the longest time offline, and two hours.
    pub min_validity: Duration,
    /// The `to_self_delay` the wallet sets, in blocks: `ChannelHandshakeConfig::our_to_self_delay`.
    pub our_to_self_delay: u16,
    /// The most trust the wallet gives: [`TrustModel::ClientTrustsLsp`] accepts both models.
    pub trust_model: TrustModel,
    /// How long to wait for the lease from the first request on, in seconds.
    pub timeout: Duration,
    /// The LSP's coupon or API key.
    pub token: Option<String>,
}

/// The part of [`LSPS2ClientHandler`] a negotiation uses.
pub trait Lsps2Client {
    /// Sends `lsps2.get_info`.
    fn request_opening_params(&self, lsp: PublicKey, token: Option<String>) -> LSPSRequestId;

    /// Sends `lsps2.buy`.
    ///
    /// # Errors
    /// As [`LSPS2ClientHandler::select_opening_params`].
    fn select_opening_params(
        &self,
        lsp: PublicKey,
        payment_size_msat: Option<u64>,
        params: LSPS2OpeningFeeParams,
    ) -> Result<LSPSRequestId, APIError>;
}

impl<ES: EntropySource, K: KVStore + Clone> Lsps2Client for LSPS2ClientHandler<ES, K> {
    fn request_opening_params(&self, lsp: PublicKey, token: Option<String>) -> LSPSRequestId {
        self.request_opening_params(lsp, token)
    }

    fn select_opening_params(
        &self,
        lsp: PublicKey,
        payment_size_msat: Option<u64>,
        params: LSPS2OpeningFeeParams,
    ) -> Result<LSPSRequestId, APIError> {
        self.select_opening_params(lsp, payment_size_msat, params)
    }
}

/// How an event moved a negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The event belongs to another negotiation, or this one is over.
    NotMine,
    /// The LSP's next answer is awaited.
    Waiting,
    /// It is over. Keep the lease before anything else: LDK does not repeat the event.
    Done(Result<Lease, NegotiateError>),
}

/// The purchase of one lease from one LSP.
#[derive(Clone, Debug)]
pub struct Negotiation {
    lsp: PublicKey,
    policy: NegotiationPolicy,
    began: Duration,
    observations: Option<Observations>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    AwaitingMenu(LSPSRequestId),
    AwaitingScid(LSPSRequestId, Box<LSPS2OpeningFeeParams>),
    Over,
}

impl Negotiation {
    /// Asks the LSP for its menu. `now` is in seconds since the Unix epoch.
    pub fn begin(
        client: &impl Lsps2Client,
        lsp: PublicKey,
        policy: NegotiationPolicy,
        now: Duration,
    ) -> Self {
        let request_id = client.request_opening_params(lsp, policy.token.clone());
        let step = Step::AwaitingMenu(request_id);
        Self { lsp, policy, began: now, observations: None, step }
    }

    /// Checks the answers also for what LDK drops from them.
    ///
    /// Without a watch the negotiation cannot abort at unknown fields, as bLIP-52 demands, and the
    /// lease takes its trust model from the policy, whatever the LSP said.
    #[must_use]
    pub fn watched_by(mut self, observations: Observations) -> Self {
        self.observations = Some(observations);
        self
    }

    /// Handles an event of LDK's LSPS2 client. Every event may be given to every negotiation.
    pub fn on_event(
        &mut self,
        client: &impl Lsps2Client,
        event: &LSPS2ClientEvent,
        now: Duration,
    ) -> Progress {
        if !self.is_mine(event) {
            return Progress::NotMine;
        }
        match self.advance(client, event, now) {
            Ok(None) => Progress::Waiting,
            Ok(Some(lease)) => self.end(Ok(lease)),
            Err(error) => self.end(Err(error)),
        }
    }

    /// Ends the negotiation if the LSP has been silent for too long; call it now and then.
    ///
    /// An answer that still comes is not mine any more: begin anew. The LSP may then count two
    /// leases against its limit.
    pub fn check_timeout(&mut self, now: Duration) -> Option<NegotiateError> {
        let waited = now.saturating_sub(self.began);
        match self.step {
            Step::Over => None,
            Step::AwaitingMenu(_) | Step::AwaitingScid(..) => {
                (waited >= self.policy.timeout).then(|| {
                    self.step = Step::Over;
                    NegotiateError::TimedOut { after_secs: waited.as_secs() }
                })
            }
        }
    }

    fn end(&mut self, outcome: Result<Lease, NegotiateError>) -> Progress {
        self.step = Step::Over;
        Progress::Done(outcome)
    }

    fn is_mine(&self, event: &LSPS2ClientEvent) -> bool {
        let (lsp, id, request) = addressee(event);
        lsp == self.lsp
            && match &self.step {
                Step::AwaitingMenu(mine) => request == Request::GetInfo && id == mine,
                Step::AwaitingScid(mine, _) => request == Request::Buy && id == mine,
                Step::Over => false,
            }
    }

    fn advance(
        &mut self,
        client: &impl Lsps2Client,
        event: &LSPS2ClientEvent,
        now: Duration,
    ) -> Result<Option<Lease>, NegotiateError> {
        match event {
            // Check the menu, choose an entry, and send it back verbatim with
            // `select_opening_params`.
            LSPS2ClientEvent::OpeningParametersReady {
                request_id,
                opening_fee_params_menu,
                ..
            } => self.buy(client, request_id, opening_fee_params_menu, now).map(|()| None),
            // Make the lease, with the terms you selected, and write it to disk before anything else.
            LSPS2ClientEvent::InvoiceParametersReady {
                request_id,
                intercept_scid,
                cltv_expiry_delta,
                ..
            } => self.lease(request_id, *intercept_scid, *cltv_expiry_delta),
            // No lease: the error's code says why.
            LSPS2ClientEvent::GetInfoFailed { error, .. } => {
                Err(NegotiateError::refused(Request::GetInfo, error))
            }
            // No lease: the error's code says why.
            LSPS2ClientEvent::BuyRequestFailed { error, .. } => {
                Err(NegotiateError::refused(Request::Buy, error))
            }
        }
    }

    fn buy(
        &mut self,
        client: &impl Lsps2Client,
        answered: &LSPSRequestId,
        menu: &[LSPS2OpeningFeeParams],
        now: Duration,
    ) -> Result<(), NegotiateError> {
        self.check_fields(answered)?;
        check_menu(menu, now)?;
        // Every value as it came, promise included: the LSP recognises its own terms by it.
        let params = choose(menu, &self.policy, now)?.clone();
        let sent = client.select_opening_params(self.lsp, self.agreed_size(), params.clone());
        let request_id = sent.map_err(|error| NegotiateError::NotSent(format!("{error:?}")))?;
        self.step = Step::AwaitingScid(request_id, Box::new(params));
        Ok(())
    }

    /// bLIP-52: clients MUST abort if an `opening_fee_params` object has unrecognized fields.
    fn check_fields(&self, answered: &LSPSRequestId) -> Result<(), NegotiateError> {
        let Some(observations) = &self.observations else {
            return Ok(());
        };
        match observations.take(&self.lsp, &answered.0) {
            Some(Observed::Menu { unknown_fields }) if unknown_fields.is_empty() => Ok(()),
            Some(Observed::Menu { unknown_fields }) => {
                Err(NegotiateError::UnknownFields(unknown_fields))
            }
            Some(Observed::Unclear) => Err(NegotiateError::Unclear),
            Some(Observed::Buy { .. }) | None => Err(NegotiateError::NotObserved),
        }
    }

    fn lease(
        &self,
        answered: &LSPSRequestId,
        intercept_scid: u64,
        cltv_expiry_delta: u32,
    ) -> Result<Option<Lease>, NegotiateError> {
        // `is_mine` lets this answer through in no other step.
        let Step::AwaitingScid(_, params) = &self.step else {
            return Ok(None);
        };
        if intercept_scid == 0 {
            return Err(NegotiateError::NoScid);
        }
        let lsp_node_id = self.lsp;
        Ok(Some(Lease {
            id: LeaseId { lsp_node_id, intercept_scid },
            cltv_expiry_delta: path_delta(cltv_expiry_delta)?,
            opening_fee_params: params.as_ref().into(),
            payment_size_msat: self.agreed_size(),
            trust_model: self.trust_model(answered)?,
        }))
    }

    fn trust_model(&self, answered: &LSPSRequestId) -> Result<TrustModel, NegotiateError> {
        let Some(observations) = &self.observations else {
            return Ok(self.policy.trust_model);
        };
        let said = match observations.take(&self.lsp, &answered.0) {
            Some(Observed::Buy { trust_model }) => trust_model,
            Some(Observed::Unclear) => return Err(NegotiateError::Unclear),
            Some(Observed::Menu { .. }) | None => return Err(NegotiateError::NotObserved),
        };
        match (said, self.policy.trust_model) {
            (TrustModel::ClientTrustsLsp, TrustModel::LspTrustsClient) => {
                Err(NegotiateError::TrustNotGiven)
            }
            (said, _) => Ok(said),
        }
    }

    fn agreed_size(&self) -> Option<u64> {
        self.policy.fixed_size.then_some(self.policy.payment_size_msat)
    }
}

/// Whose event it is, and the answer to what.
fn addressee(event: &LSPS2ClientEvent) -> (PublicKey, &LSPSRequestId, Request) {
    use LSPS2ClientEvent::*;
    match event {
        OpeningParametersReady { counterparty_node_id, request_id, .. }
        | GetInfoFailed { counterparty_node_id, request_id, .. } => {
            (*counterparty_node_id, request_id, Request::GetInfo)
        }
        InvoiceParametersReady { counterparty_node_id, request_id, .. }
        | BuyRequestFailed { counterparty_node_id, request_id, .. } => {
            (*counterparty_node_id, request_id, Request::Buy)
        }
    }
}

/// LDK's event has a `u32`, a blinded path takes a `u16`, LDK's LSP forwards nothing below 48, and an LDK
/// payer takes 1008 blocks for the whole route: what the LSP alone takes up nobody could pay.
fn path_delta(blocks: u32) -> Result<u16, NegotiateError> {
    let payable = u32::from(MIN_CLTV_EXPIRY_DELTA)..DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA;
    match u16::try_from(blocks) {
        Ok(delta) if payable.contains(&blocks) => Ok(delta),
        Ok(_) | Err(_) => Err(NegotiateError::CltvExpiryDelta(blocks)),
    }
}
