//! How large a JIT channel must be, and how it is opened.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channelmanager::AChannelManager;
use lightning::ln::types::ChannelId;
use lightning::util::config::UserConfig;
use lightning::util::errors::APIError;

/// The reserve a client asks of the LSP, in percent of the channel, if it is LDK with its default
/// (`ChannelHandshakeConfig::their_channel_reserve_proportional_millionths`).
const RESERVE_PERCENT: u64 = 1;
/// The least reserve, in sat (`MIN_THEIR_CHAN_RESERVE_SATOSHIS`).
const MIN_RESERVE_SAT: u64 = 1_000;
/// Two anchors of 330 sat (`ANCHOR_OUTPUT_VALUE_SATOSHI`).
const ANCHORS_SAT: u64 = 660;
/// The weight of a commitment transaction with anchors, and of each HTLC in it (BOLT 3).
const COMMITMENT_WEIGHT: u64 = 1_124;
const HTLC_WEIGHT: u64 = 172;

/// How channels are sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSizing {
    /// What the channel should be able to carry, in percent of the first payment. A payer may split
    /// a payment, and only the parts that wait by then size the channel: 100 would fail a later one.
    pub headroom_percent: u64,
    /// The feerate of the commitment transaction to be ready for, in sat per 1000 weight units.
    pub commitment_feerate_sat_per_kw: u64,
    /// The number of HTLCs in flight to be ready for.
    pub htlcs: u64,
    /// The smallest channel to open, in sat.
    pub min_channel_sat: u64,
    /// The largest channel to open, in sat. Above 16 777 215 the client must support large ones.
    pub max_channel_sat: u64,
}

impl Default for ChannelSizing {
    fn default() -> Self {
        Self {
            headroom_percent: 200,
            commitment_feerate_sat_per_kw: 2_500,
            htlcs: 10,
            min_channel_sat: 20_000,
            max_channel_sat: 16_777_215,
        }
    }
}

impl ChannelSizing {
    /// The size, in sat, of a channel that can carry `amt_to_forward_msat` and, as far as
    /// `max_channel_sat` allows, the headroom. `None` if even the payment alone does not fit.
    pub fn channel_value_sat(&self, amt_to_forward_msat: u64) -> Option<u64> {
        let payment_sat = amt_to_forward_msat.div_ceil(1_000);
        let needed = self.value_to_carry(payment_sat)?;
        let wished = payment_sat.checked_mul(self.headroom_percent)?.div_ceil(100);
        let wished = self.value_to_carry(wished.max(payment_sat))?;
        let value = wished.max(self.min_channel_sat).min(self.max_channel_sat);
        (value >= needed).then_some(value)
    }

    /// The fee the LSP must be able to pay, in sat. LDK's fee-spike buffer asks for twice the fee.
    pub fn fee_margin_sat(&self) -> Option<u64> {
        let weight = self.htlcs.checked_mul(HTLC_WEIGHT)?.checked_add(COMMITMENT_WEIGHT)?;
        let fee_sat = weight.checked_mul(self.commitment_feerate_sat_per_kw)?.div_ceil(1_000);
        fee_sat.checked_mul(2)?.checked_add(ANCHORS_SAT)
    }

    /// value − max(1000 sat, 1 %) − margin ≥ `carried_sat`, solved for the value.
    fn value_to_carry(&self, carried_sat: u64) -> Option<u64> {
        let spendable = carried_sat.checked_add(self.fee_margin_sat()?)?;
        let with_percent = spendable.checked_mul(100)?.div_ceil(100 - RESERVE_PERCENT);
        Some(with_percent.max(spendable.checked_add(MIN_RESERVE_SAT)?))
    }
}

/// A channel to be created, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPlan {
    /// The client.
    pub counterparty: PublicKey,
    /// The size of the channel, in sat.
    pub channel_value_sat: u64,
    /// What is given away at once, in msat: nothing.
    pub push_msat: u64,
    /// The id that ties the channel to the lease.
    pub user_channel_id: u128,
    /// The largest `to_self_delay`, in blocks, the client may ask for.
    pub max_client_to_self_delay: u32,
}

impl OpenPlan {
    /// Creates the channel. `base` is the node's own configuration.
    ///
    /// On an error call `JitDesk::open_failed`, else the HTLC hangs until the open deadline.
    pub fn create<M: AChannelManager>(
        &self,
        channel_manager: &M,
        base: &UserConfig,
    ) -> Result<ChannelId, APIError> {
        channel_manager.get_cm().create_channel(
            self.counterparty,
            self.channel_value_sat,
            self.push_msat,
            self.user_channel_id,
            None,
            Some(jit_channel_config(base, self.max_client_to_self_delay)),
        )
    }
}

/// The configuration of a JIT channel: unannounced, with an SCID alias (bLIP-52 asks for both) and
/// without a forwarding fee, since the path the payer got charges none.
pub fn jit_channel_config(base: &UserConfig, max_client_to_self_delay: u32) -> UserConfig {
    let mut config = base.clone();
    let handshake = &mut config.channel_handshake_config;
    handshake.announce_for_forwarding = false;
    handshake.negotiate_scid_privacy = true;
    handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    config.channel_config.forwarding_fee_base_msat = 0;
    config.channel_config.forwarding_fee_proportional_millionths = 0;
    let delay = u16::try_from(max_client_to_self_delay).unwrap_or(u16::MAX);
    let limits = &mut config.channel_handshake_limits;
    limits.their_to_self_delay = limits.their_to_self_delay.min(delay);
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spendable_sat(value: u64, sizing: &ChannelSizing) -> u64 {
        let reserve = (value * RESERVE_PERCENT / 100).max(MIN_RESERVE_SAT);
        value - reserve - sizing.fee_margin_sat().unwrap()
    }

    proptest! {
        #[test]
        fn the_channel_carries_the_payment_with_headroom(
            amt in 1..2_100_000_000_000_000u64,
            headroom_percent in 0..1_000u64,
            feerate in 253..50_000u64,
        ) {
            let sizing = ChannelSizing {
                headroom_percent,
                commitment_feerate_sat_per_kw: feerate,
                max_channel_sat: u64::MAX,
                ..ChannelSizing::default()
            };
            let value = sizing.channel_value_sat(amt).unwrap();
            let carried_msat = u128::from(spendable_sat(value, &sizing)) * 1_000;
            let percent = u128::from(headroom_percent.max(100));
            prop_assert!(carried_msat * 100 >= u128::from(amt) * percent);
        }

        #[test]
        fn a_limit_takes_headroom_but_never_the_payment(
            amt in 1..20_000_000_000u64,
            max_channel_sat in 20_000..20_000_000u64,
        ) {
            let sizing = ChannelSizing { max_channel_sat, ..ChannelSizing::default() };
            if let Some(value) = sizing.channel_value_sat(amt) {
                prop_assert!(value <= max_channel_sat);
                prop_assert!(spendable_sat(value, &sizing) >= amt.div_ceil(1_000));
            }
        }

        #[test]
        fn no_input_overflows(amt in any::<u64>(), headroom in any::<u64>(), rate in any::<u64>()) {
            let sizing = ChannelSizing {
                headroom_percent: headroom,
                commitment_feerate_sat_per_kw: rate,
                ..ChannelSizing::default()
            };
            sizing.channel_value_sat(amt);
        }
    }

    #[test]
    fn a_jit_channel_is_private_and_free() {
        let mut base = UserConfig::default();
        base.channel_handshake_config.announce_for_forwarding = true;
        base.channel_handshake_limits.their_to_self_delay = 2_016;
        let config = jit_channel_config(&base, 432);
        assert!(!config.channel_handshake_config.announce_for_forwarding);
        assert!(config.channel_handshake_config.negotiate_scid_privacy);
        assert_eq!(config.channel_config.forwarding_fee_base_msat, 0);
        assert_eq!(config.channel_config.forwarding_fee_proportional_millionths, 0);
        assert_eq!(config.channel_handshake_limits.their_to_self_delay, 432);
        let config = jit_channel_config(&base, u32::MAX);
        assert_eq!(config.channel_handshake_limits.their_to_self_delay, 2_016);
    }
}
