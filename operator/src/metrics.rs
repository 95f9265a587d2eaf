//! The operator's own metrics. Names are listed in `docs/reference/metrics.md`; a test compares
//! both. Labels are bounded: no object's name is ever one.
