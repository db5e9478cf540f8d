//! From answers of vantage points to landings, outages and losses.
