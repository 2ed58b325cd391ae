//! What can go wrong while a lease is bought, and what to do about it.

use super::menu::PassedOver;
use core::fmt;
use lightning_liquidity::lsps0::ser::LSPSResponseError;
use thiserror::Error;

/// Why no lease was bought.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiateError {
    /// The LSP answered with an error.
    #[error("{reason} (it says: {said})")]
    Refused {
        /// What the error code means.
        reason: LspRefusal,
        /// The LSP's words, cut to 256 printable characters.
        said: String,
    },
    /// The LSP sells nothing at the moment.
    #[error("the LSP offers no JIT channels now: try later, or another LSP")]
    EmptyMenu,
    /// The menu was stale when it came.
    #[error("every entry of the menu has expired: check this node's clock, then ask again")]
    MenuExpired,
    /// A promise is longer than a client must store.
    #[error("the promise of menu entry {entry} exceeds 512 bytes: report it to the LSP")]
    PromiseTooLong {
        /// Its index in the menu.
        entry: usize,
    },
    /// The entries do not rise in price.
    #[error("menu entry {entry} is not dearer than the one before it: report it to the LSP")]
    MenuNotOrdered {
        /// The index of the later entry.
        entry: usize,
    },
    /// An entry has fields that LDK does not know and so would not send back.
    #[error("the menu has fields unknown to LDK ({}): its fees may mean something else; use another LSP", .0.join(", "))]
    UnknownFields(Vec<String>),
    /// No entry suits the wallet.
    #[error("no entry of the menu suits the wallet: {0}")]
    NothingSuitable(PassedOver),
    /// LDK could not send the request.
    #[error("LDK did not accept the request: {0}")]
    NotSent(String),
    /// The SCID is zero, which names no channel.
    #[error("the LSP gave the intercept SCID 0: do not use this lease, report it to the LSP")]
    NoScid,
    /// The delta is below LDK's `MIN_CLTV_EXPIRY_DELTA`, or as much as a payer takes for a whole route.
    #[error(
        "the LSP wants a CLTV delta of {0} blocks: only 48 to 1007 can be used; use another LSP"
    )]
    CltvExpiryDelta(u32),
    /// The LSP wants to be trusted, and the wallet does not.
    #[error("the LSP opens channels only for clients that trust it: do not use this lease")]
    TrustNotGiven,
    /// The answer did not pass the [`MenuWatch`](super::MenuWatch).
    #[error(
        "the LSP's answer was not observed: give the MenuWatch, not the manager, to PeerManager"
    )]
    NotObserved,
    /// The LSP answered the same request in several ways, or in a form of its own: LDK may have read
    /// something else than the [`MenuWatch`](super::MenuWatch) did.
    #[error("the LSP's answer can be read in more than one way: use another LSP")]
    Unclear,
    /// No answer came. LDK stops listening to a peer it could not understand, until it reconnects.
    #[error("no answer from the LSP after {after_secs} s: reconnect to it, then try again")]
    TimedOut {
        /// How long was waited, in seconds.
        after_secs: u64,
    },
}

impl NegotiateError {
    pub(super) fn refused(request: Request, error: &LSPSResponseError) -> Self {
        Self::Refused {
            reason: LspRefusal::from_code(request, error.code),
            said: printable(&error.message),
        }
    }
}

/// Which request failed: the codes of bLIP-52 belong to one of them each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    GetInfo,
    Buy,
}

/// What an LSP's error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LspRefusal {
    /// 200 to `lsps2.get_info`.
    UnrecognizedOrStaleToken,
    /// 201 to `lsps2.buy`.
    InvalidOpeningFeeParams,
    /// 202 to `lsps2.buy`.
    PaymentSizeTooSmall,
    /// 203 to `lsps2.buy`.
    PaymentSizeTooLarge,
    /// 1 (bLIP-50): LDK's LSP answers so to a client with ten unpaid leases or open requests.
    ClientRejected,
    /// −32700 (JSON-RPC).
    ParseError,
    /// −32600 (JSON-RPC).
    InvalidRequest,
    /// −32601 (JSON-RPC).
    MethodNotFound,
    /// −32602 (JSON-RPC).
    InvalidParams,
    /// −32603 (JSON-RPC).
    InternalError,
    /// Any other code.
    Other(i32),
}

impl LspRefusal {
    fn from_code(request: Request, code: i32) -> Self {
        match (request, code) {
            (Request::GetInfo, 200) => Self::UnrecognizedOrStaleToken,
            (Request::Buy, 201) => Self::InvalidOpeningFeeParams,
            (Request::Buy, 202) => Self::PaymentSizeTooSmall,
            (Request::Buy, 203) => Self::PaymentSizeTooLarge,
            (_, 1) => Self::ClientRejected,
            (_, -32700) => Self::ParseError,
            (_, -32600) => Self::InvalidRequest,
            (_, -32601) => Self::MethodNotFound,
            (_, -32602) => Self::InvalidParams,
            (_, -32603) => Self::InternalError,
            (_, other) => Self::Other(other),
        }
    }
}

impl fmt::Display for LspRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnrecognizedOrStaleToken => "the LSP does not accept the token: get a new one",
            Self::InvalidOpeningFeeParams => {
                "the terms have expired or were altered: ask for a new menu"
            }
            Self::PaymentSizeTooSmall => "the fee would eat the payment: buy for a larger one",
            Self::PaymentSizeTooLarge => {
                "the LSP cannot receive so much: buy for a smaller payment"
            }
            Self::ClientRejected => {
                "the LSP rejects this client: use or let expire the leases it holds"
            }
            Self::ParseError => "the LSP could not read the request: reconnect, then try again",
            Self::InvalidRequest => {
                "the LSP calls the request invalid: check that it speaks bLIP-50"
            }
            Self::MethodNotFound => "the LSP sells no JIT channels: use another one",
            Self::InvalidParams => {
                "the LSP does not accept the parameters: check that it speaks bLIP-52"
            }
            Self::InternalError => "the LSP failed: try again later",
            Self::Other(code) => return write!(f, "the LSP refused with unknown code {code}"),
        })
    }
}

/// Cuts a foreign string so that it can be logged: at most 256 characters, none that steers a
/// terminal or reverses the text.
pub(super) fn printable(foreign: &str) -> String {
    const MAX_CHARS: usize = 256;
    let steers = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    foreign.chars().filter(|c| !steers(c)).take(MAX_CHARS).collect()
}
