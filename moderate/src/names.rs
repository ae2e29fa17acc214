//! How files of reports are called.

use std::path::Path;

/// What relays and clients name them with, and what people do.
const EXTENSIONS: [&str; 2] = ["conclave-report", "report"];

/// Whether a file is named like a report, whatever is in it.
pub(crate) fn is_reports(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

/// A report's name without what says that it is one.
pub(crate) fn stem(path: &Path) -> String {
    let name = if is_reports(path) { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| "report".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_names_and_peoples_are_known_and_lose_their_ending() {
        let known = |name: &str| (is_reports(Path::new(name)), stem(Path::new(name)));
        assert_eq!(known("in/AEBAGBAF.conclave-report"), (true, "AEBAGBAF".to_owned()));
        assert_eq!(known("in/a.report"), (true, "a".to_owned()));
        for other in [".report", ".conclave-report", "a.report.json", "conclave-report", "notes.txt"] {
            assert_eq!(known(other), (false, other.to_owned()));
        }
    }
}
