//! Words to stderr and data to stdout that cannot bring the program down: a reader that is gone (`ubique … | head`, a
//! closed terminal) is no reason to panic in the middle of an agent or a rehearsal.

/// Words and progress: a line on stderr.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

/// Data: a line on stdout.
macro_rules! tell {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// Data: text on stdout without a line's end.
macro_rules! tell_raw {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($argument)*);
    }};
}

/// Words: text on stderr without a line's end.
macro_rules! say_raw {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($argument)*);
    }};
}

pub(crate) use {say, say_raw, tell, tell_raw};
