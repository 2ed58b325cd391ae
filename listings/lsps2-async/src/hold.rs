//! How long a recipient may stay away while a payment waits for it.
//!
//! Blocks decide as long as the payer's LSP holds an HTLC: its expiries are fixed when the payer locks
//! it, and the recipient's own path is what moves them
//! ([`PathPolicy::extra_final_cltv_delta`](crate::router::PathPolicy::extra_final_cltv_delta)). The
//! lease decides too, and time alone if the payer waits online.
//!
//! ```
//! use core::time::Duration;
//! use lsps2_async::hold::{Absence, Ends, Hold, Payer};
//!
//! let hold = Hold { extra_final_cltv_delta: 144, ..Hold::locked_at(880_000) };
//! assert_eq!((hold.window_blocks(), hold.last_to_open()), (147, 880_147));
//!
//! let four_weeks = Duration::from_secs(28 * 86_400);
//! let absence = Absence { payer: Payer::HeldByItsLsp(hold), lease_left: four_weeks };
//! let longest = absence.longest();
//! assert_eq!((longest.ends, longest.time), (Ends::Hold, Duration::from_secs(147 * 600)));
//! ```

use core::time::Duration;
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::routing::router::DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA;

use crate::lsp::decision::{CLIENT_NEEDS_BLOCKS, LEAST_BLOCKS_TO_OPEN};
use crate::router::BLIP52_EXTRA_FINAL_BLOCKS;

/// What a block takes on average, in seconds. Ten blocks in a row may take twice or half as long.
pub const BLOCK_TIME: Duration = Duration::from_secs(600);

/// The blocks of a route that LDK keeps for the random offset when it looks for one
/// (`routing/router.rs`, `2 * MEDIAN_HOP_CLTV_EXPIRY_DELTA`).
pub const KEPT_FOR_SHADOW_BLOCKS: u32 = 2 * 40;

/// The largest random offset (`routing/router.rs`, `MAX_SHADOW_CLTV_EXPIRY_DELTA_OFFSET`).
pub const MOST_SHADOW_BLOCKS: u32 = 3 * 144;

/// How long a payer that is online waits for the release, in seconds (`ln/outbound_payment.rs`,
/// `ASYNC_PAYMENT_TIMEOUT_RELATIVE_EXPIRY`).
pub const PAYERS_PATIENCE: Duration = Duration::from_secs(7 * 86_400);

/// How old the invoice at the server may be, in seconds, when a wallet leaves: LDK renews one only
/// then, and while the wallet is online (`offers/async_receive_offer_cache.rs`,
/// `INVOICE_REFRESH_THRESHOLD`).
pub const INVOICE_REFRESH: Duration = Duration::from_secs(2 * 3_600);

/// LDK's default delta of a hop, in blocks (`ChannelConfig::cltv_expiry_delta`).
const USUAL_DELTA: u16 = 72;

/// A payment that the payer's LSP holds for a recipient whose path leads over a lease. All of it is in
/// blocks; the payer's LSP has a channel with the recipient's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The height at which the payer locked it.
    pub height: u32,
    /// What the recipient adds to the final delta of its path.
    pub extra_final_cltv_delta: u16,
    /// The delta of the lease: `lsp_cltv_expiry_delta` in the answer to `lsps2.buy`.
    pub lease_delta: u16,
    /// The delta of the payer's LSP.
    pub payer_lsp_delta: u16,
    /// The random offset that the payer's router added to the route. Only the payer knows it, and 0 is
    /// what can be relied on.
    pub shadow_offset: u32,
}

impl Hold {
    /// A payment over LDK's usual deltas, and no more of an offset than is certain.
    pub fn locked_at(height: u32) -> Self {
        Self {
            height,
            extra_final_cltv_delta: 0,
            lease_delta: USUAL_DELTA,
            payer_lsp_delta: USUAL_DELTA,
            shadow_offset: 0,
        }
    }

    /// Whether the payer's LDK finds the route: all deltas, and what is kept for the offset, within
    /// 1 008 blocks.
    pub fn has_route(&self) -> bool {
        let extra = u32::from(self.extra_final_cltv_delta);
        self.most_extra_blocks().is_some_and(|most| extra <= most)
    }

    /// The most that the recipient's path may add; `None` if the other deltas are too much already.
    pub fn most_extra_blocks(&self) -> Option<u32> {
        let deltas = u32::from(self.lease_delta) + u32::from(self.payer_lsp_delta);
        let usual = jit_final_delta(0) + deltas + KEPT_FOR_SHADOW_BLOCKS;
        DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA.checked_sub(usual)
    }

    /// When its HTLC expires at the recipient. The payer counts from the block after the tip.
    pub fn expiry_at_recipient(&self) -> u32 {
        let blocks = 1 + jit_final_delta(self.extra_final_cltv_delta);
        self.height.saturating_add(blocks).saturating_add(self.shadow_offset)
    }

    /// The last height at which the recipient's LSP opens a channel for it.
    pub fn last_to_open(&self) -> u32 {
        self.expiry_at_recipient().saturating_sub(LEAST_BLOCKS_TO_OPEN)
    }

    /// The last height at which a recipient takes it over a channel that is open.
    pub fn last_to_take(&self) -> u32 {
        self.expiry_at_recipient().saturating_sub(CLIENT_NEEDS_BLOCKS)
    }

    /// The height at which the payer's LSP gives it back if nobody has released it.
    pub fn given_back_at(&self) -> u32 {
        let expiry = self.expiry_at_recipient().saturating_add(self.lease_delta.into());
        expiry.saturating_sub(HTLC_FAIL_BACK_BUFFER)
    }

    /// For how many blocks after it was locked the recipient may be away.
    pub fn window_blocks(&self) -> u32 {
        self.last_to_open().saturating_sub(self.height)
    }
}

/// The final delta of a JIT path.
fn jit_final_delta(extra: u16) -> u32 {
    u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA) + u32::from(BLIP52_EXTRA_FINAL_BLOCKS) + u32::from(extra)
}

/// How the payer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// It is often offline: its LSP holds the HTLC.
    HeldByItsLsp(Hold),
    /// It waits online, and looks for a route at the release.
    WaitsOnline,
}

/// A recipient that is away when a payment comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Who pays.
    pub payer: Payer,
    /// How long the lease that the invoice names is still valid then, in seconds: `valid_until` less
    /// the time. The LSP looks at it when the recipient is back, and the HTLC on its way.
    pub lease_left: Duration,
}

/// What ends an absence at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The lease: afterwards its LSP opens no channel.
    Lease,
    /// The expiry of the held HTLC.
    Hold,
    /// The payer, which gives the payment up.
    Payer,
    /// It does not begin: the payer finds no route.
    NoRoute,
}

/// The longest absence that a payment survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Longest {
    /// How long it may be, in seconds. Of blocks it is what they take on average.
    pub time: Duration,
    /// What ends it.
    pub ends: Ends,
}

impl Absence {
    /// The first thing that ends it.
    pub fn longest(&self) -> Longest {
        let (time, ends) = match self.payer {
            Payer::HeldByItsLsp(hold) if !hold.has_route() => (Duration::ZERO, Ends::NoRoute),
            Payer::HeldByItsLsp(hold) => {
                (BLOCK_TIME.saturating_mul(hold.window_blocks()), Ends::Hold)
            }
            Payer::WaitsOnline => (PAYERS_PATIENCE, Ends::Payer),
        };
        match ends != Ends::NoRoute && self.lease_left <= time {
            true => Longest { time: self.lease_left, ends: Ends::Lease },
            false => Longest { time, ends },
        }
    }
}

/// What a wallet sets so that it may be away for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// [`PathPolicy::extra_final_cltv_delta`](crate::router::PathPolicy::extra_final_cltv_delta), in
    /// blocks.
    pub extra_final_cltv_delta: u32,
    /// [`NegotiationPolicy::min_validity`](crate::negotiate::NegotiationPolicy::min_validity), in
    /// seconds.
    pub min_validity: Duration,
}

impl Settings {
    /// For an absence of `time`, whatever the payer's offset is.
    ///
    /// `None` if no route leaves that many blocks: `usual` has the deltas of the route.
    pub fn to_be_away(time: Duration, usual: &Hold) -> Option<Self> {
        let blocks = time.as_secs().div_ceil(BLOCK_TIME.as_secs());
        let certain = Hold { extra_final_cltv_delta: 0, shadow_offset: 0, ..*usual };
        let extra = blocks.saturating_sub(certain.window_blocks().into());
        let extra_final_cltv_delta = u32::try_from(extra).ok()?;
        let min_validity = time.saturating_add(INVOICE_REFRESH);
        let settings = Self { extra_final_cltv_delta, min_validity };
        let most = usual.most_extra_blocks()?;
        (extra_final_cltv_delta <= most).then_some(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const HEIGHT: u32 = 111;

    /// The worked example of the guide: the deltas of its nodes, and an offset of 120.
    #[test]
    fn the_heights_are_those_of_the_guides_example() {
        let hold = Hold { shadow_offset: 120, ..Hold::locked_at(HEIGHT) };
        assert_eq!(hold.expiry_at_recipient(), 276);
        assert_eq!((hold.last_to_open(), hold.last_to_take()), (234, 235));
        assert_eq!(hold.given_back_at(), 309);
        assert_eq!(hold.window_blocks(), 123);
    }

    #[test]
    fn three_blocks_are_certain_and_the_path_adds_the_rest() {
        for extra_final_cltv_delta in [0, 1, 144, 740] {
            let hold = Hold { extra_final_cltv_delta, ..Hold::locked_at(HEIGHT) };
            assert_eq!(hold.window_blocks(), 3 + u32::from(extra_final_cltv_delta));
            assert!(hold.has_route());
            let sooner = Hold::locked_at(HEIGHT).given_back_at();
            assert_eq!(hold.given_back_at() - sooner, u32::from(extra_final_cltv_delta));
        }
        let too_much = Hold { extra_final_cltv_delta: 741, ..Hold::locked_at(HEIGHT) };
        assert!(!too_much.has_route());
        let dear = Hold { lease_delta: 60_000, ..Hold::locked_at(HEIGHT) };
        assert_eq!((dear.most_extra_blocks(), dear.has_route()), (None, false));
    }

    fn ends(payer: Payer, lease_left: Duration) -> (Ends, u64) {
        let longest = Absence { payer, lease_left }.longest();
        (longest.ends, longest.time.as_secs())
    }

    #[test]
    fn the_first_of_the_limits_ends_an_absence() {
        let hold = Payer::HeldByItsLsp(Hold::locked_at(HEIGHT));
        assert_eq!(ends(hold, 28 * DAY), (Ends::Hold, 1_800));
        assert_eq!(ends(hold, Duration::from_secs(1_801)), (Ends::Hold, 1_800));
        assert_eq!(ends(hold, Duration::from_secs(1_800)), (Ends::Lease, 1_800));
        assert_eq!(ends(hold, Duration::ZERO), (Ends::Lease, 0));
        assert_eq!(ends(Payer::WaitsOnline, 28 * DAY), (Ends::Payer, 7 * 86_400));
        assert_eq!(ends(Payer::WaitsOnline, DAY), (Ends::Lease, 86_400));
        let none = Hold { extra_final_cltv_delta: 741, ..Hold::locked_at(HEIGHT) };
        assert_eq!(ends(Payer::HeldByItsLsp(none), Duration::ZERO), (Ends::NoRoute, 0));
    }

    #[test]
    fn settings_let_a_wallet_be_away_for_as_long_and_no_block_is_wasted() {
        let usual = Hold::locked_at(HEIGHT);
        for minutes in [0, 1, 30, 31, 60, 24 * 60, 5 * 24 * 60, 7_430] {
            let time = Duration::from_secs(minutes * 60);
            let settings = Settings::to_be_away(time, &usual).unwrap();
            let extra = u16::try_from(settings.extra_final_cltv_delta).unwrap();
            let hold = Hold { extra_final_cltv_delta: extra, ..usual };
            let lease_left = settings.min_validity - INVOICE_REFRESH;
            let absence = Absence { payer: Payer::HeldByItsLsp(hold), lease_left };
            assert!(absence.longest().time >= time, "{minutes} minutes");
            assert!(extra == 0 || BLOCK_TIME * (hold.window_blocks() - 1) < time);
        }
        assert_eq!(Settings::to_be_away(Duration::from_secs(7_431 * 60), &usual), None);
        assert_eq!(Settings::to_be_away(Duration::MAX, &usual), None);
    }

    #[test]
    fn heights_beyond_any_chain_do_not_wrap_around() {
        let far = Hold { shadow_offset: u32::MAX, ..Hold::locked_at(u32::MAX) };
        assert_eq!(far.expiry_at_recipient(), u32::MAX);
        assert_eq!((far.window_blocks(), far.given_back_at()), (0, u32::MAX - 39));
    }
}
