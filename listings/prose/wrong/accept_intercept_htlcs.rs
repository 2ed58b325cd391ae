use lightning::util::config::UserConfig;

fn main() {
    let mut config = UserConfig::default();
    config.accept_intercept_htlcs = true;
}
