use lightning::util::config::UserConfig;

fn main() {
    let mut config = UserConfig::default();
    config.manually_accept_inbound_channels = true;
}
