//! Criterion benches of the protocol and the media path; `benches/README.md` says what each measures.
