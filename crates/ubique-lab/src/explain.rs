//! Why a vantage point lands where it does.
