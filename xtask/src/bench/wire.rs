//! Delay error of the lab's wire.

use super::{Row, json_of, release_binary};

/// p50, p99 and p99.9 of the error at 20,000 packets a second, and the CPU it took.
pub fn run() -> Result<Vec<Row>, String> {
    let result = json_of(&release_binary()?, &["internal", "bench-wire"])?;
    let figure = |key: &str| result[key].as_f64().ok_or(format!("no {key} in {result}"));
    let ms = |key: &str| figure(key).map(|us| us / 1000.0);
    Ok(vec![
        Row::new("wire: delay error p50, 20,000 packets/s", ms("p50_us")?, "ms", None),
        Row::new("wire: delay error p99, 20,000 packets/s", ms("p99_us")?, "ms", Some(1.0)),
        Row::new("wire: delay error p99.9, 20,000 packets/s", ms("p999_us")?, "ms", None),
        Row::new("wire: CPU, share of one core", figure("cpu")? * 100.0, "%", None),
        Row::new("wire: packets lost", figure("sent")? - figure("received")?, "", Some(0.0)),
    ])
}
