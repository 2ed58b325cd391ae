//! lsps2-async
