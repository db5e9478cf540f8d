//! The vantage points: DNS queries at a fixed interval, with kernel timestamps.
