//! The report of a rehearsal: JSON and one self-contained HTML page.
