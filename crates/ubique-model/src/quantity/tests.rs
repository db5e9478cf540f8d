use super::*;
use proptest::prelude::*;

#[test]
fn durations() {
    for (text, ns) in [
        ("100ms", 100_000_000),
        ("2s", 2_000_000_000),
        ("1m", 60_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0s", 0),
        ("5us", 5_000),
        ("5µs", 5_000),
        ("1h", 3_600_000_000_000),
        (" 7 ns", 7),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
    }
    for bad in ["", "s", "1", "1.s", ".5s", "1.2.3s", "-1s", "1d", "1 second ago", "99999999999h", "0.1ns", "1e3s"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_duration("80").unwrap_err().fix.unwrap(), "write \"80s\" or \"80ms\"");
    assert_eq!(parse_duration("3 seconds").unwrap_err().fix.unwrap(), "write \"3s\"");
    assert_eq!(parse_duration("3MS").unwrap_err().fix.unwrap(), "write \"3ms\"");
}

#[test]
fn rates() {
    assert_eq!(parse_bit_rate("40Gbit/s"), Ok(40_000_000_000));
    assert_eq!(parse_bit_rate("1.5Tbit/s"), Ok(1_500_000_000_000));
    assert_eq!(parse_bit_rate("64 kbit/s"), Ok(64_000));
    assert_eq!(parse_bit_rate("9bit/s"), Ok(9));
    assert_eq!(parse_query_rate("1.2M/s"), Ok(1_200_000));
    assert_eq!(parse_query_rate("500/s"), Ok(500));
    for bad in ["", "G", "40", "40G", "0Gbit/s", "1.5bit/s", "40Xbit/s", "99999999999Tbit/s", "-1Gbit/s"] {
        assert!(parse_bit_rate(bad).is_err(), "{bad}");
    }
    for bad in ["", "1.2M", "M/s", "0/s", "1.5/s", "5q/s"] {
        assert!(parse_query_rate(bad).is_err(), "{bad}");
    }
    let fix = |text| parse_bit_rate(text).unwrap_err().fix.unwrap();
    assert_eq!(fix("40G"), "write \"40Gbit/s\"");
    assert_eq!(fix("40Gbps"), "write \"40Gbit/s\"");
    assert_eq!(fix("5GB/s"), "write \"40Gbit/s\"");
    assert_eq!(fix("40gbit/s"), "write \"40Gbit/s\"");
    assert_eq!(parse_query_rate("1.2M").unwrap_err().fix.unwrap(), "write \"1.2M/s\"");
}

#[test]
fn percentages() {
    assert_eq!(parse_percentage("50%"), Ok(0.5));
    assert_eq!(parse_percentage("0%"), Ok(0.0));
    assert_eq!(parse_percentage("100 %"), Ok(1.0));
    for bad in ["", "%", "101%", "-1%", "0.1", "1e3%", "1..2%", "NaN%", "5percent"] {
        assert!(parse_percentage(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(ns in any::<u64>(), rate in 1_u64..) {
        let duration = Duration::from_nanos(ns);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        prop_assert_eq!(parse_bit_rate(&format_bit_rate(rate)), Ok(rate));
        prop_assert_eq!(parse_query_rate(&format_query_rate(rate)), Ok(rate));
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,40}") {
        let _ = parse_duration(&text);
        let _ = parse_bit_rate(&text);
        let _ = parse_query_rate(&text);
        let _ = parse_percentage(&text);
    }
}
