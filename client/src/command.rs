//! What a client can be told to do, as one JSON object per line (`docs/automation.md` §3) or as words typed by a
//! person.

use serde::Deserialize;

/// Longest line, in bytes: a command with the longest name fits many times.
pub const MAX_LINE: usize = 4_096;

/// Somebody, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Who {
    /// A knock's id or a member's index.
    Number(u32),
    /// A display name.
    Name(String),
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Lets a guest in.
    Admit {
        /// The knock.
        who: Who,
    },
    /// Lets everybody in who waits.
    AdmitAll {},
    /// Turns a guest down.
    Deny {
        /// The knock.
        who: Who,
    },
    /// Puts a member out.
    Remove {
        /// The member.
        who: Who,
    },
    /// Stops this client's sound.
    Mute {},
    /// Takes it up again.
    Unmute {},
    /// Asks for statistics now.
    Stats {},
    /// Leaves.
    Leave {},
    /// Ends the meeting for all.
    End {},
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// Too long.
    #[error("a command has at most {MAX_LINE} bytes")]
    TooLong,
    /// Not understood.
    #[error("not a command: {0}")]
    NotUnderstood(String),
}

/// What can be typed, for `help` and for mistakes.
pub const WORDS: &str =
    "admit NAME, admit all, deny NAME, remove NAME, mute, unmute, stats, leave, end (a number will do for a name)";

impl Command {
    /// Reads a line of JSON.
    ///
    /// # Errors
    /// [`BadCommand`].
    pub fn from_json(line: &str) -> Result<Self, BadCommand> {
        if line.len() > MAX_LINE {
            return Err(BadCommand::TooLong);
        }
        serde_json::from_str(line).map_err(|error| BadCommand::NotUnderstood(error.to_string()))
    }

    /// Reads what a person typed.
    ///
    /// # Errors
    /// [`BadCommand`].
    pub fn from_words(line: &str) -> Result<Self, BadCommand> {
        if line.len() > MAX_LINE {
            return Err(BadCommand::TooLong);
        }
        let line = line.trim();
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let who = || match rest.parse() {
            Ok(number) => Who::Number(number),
            Err(_) => Who::Name(rest.to_owned()),
        };
        match (verb.to_lowercase().as_str(), rest.is_empty()) {
            ("admit", false) if rest.eq_ignore_ascii_case("all") => Ok(Self::AdmitAll {}),
            ("admit", false) => Ok(Self::Admit { who: who() }),
            ("deny", false) => Ok(Self::Deny { who: who() }),
            ("remove", false) => Ok(Self::Remove { who: who() }),
            ("mute", true) => Ok(Self::Mute {}),
            ("unmute", true) => Ok(Self::Unmute {}),
            ("stats", true) => Ok(Self::Stats {}),
            ("leave", true) => Ok(Self::Leave {}),
            ("end", true) => Ok(Self::End {}),
            _ => Err(BadCommand::NotUnderstood(format!("type one of: {WORDS}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_commands_are_read_and_superfluous_fields_refused() {
        assert_eq!(Command::from_json(r#"{"do":"admit","who":3}"#), Ok(Command::Admit { who: Who::Number(3) }));
        assert_eq!(
            Command::from_json(r#"{"do":"remove","who":"Bob"}"#),
            Ok(Command::Remove { who: Who::Name("Bob".into()) })
        );
        assert_eq!(Command::from_json(r#"{"do":"admit_all"}"#), Ok(Command::AdmitAll {}));
        for bad in
            [r#"{"do":"admit"}"#, r#"{"do":"mute","x":1}"#, r#"{"do":"fly"}"#, "[]", "{", r#"{"do":"admit","who":-1}"#]
        {
            assert!(Command::from_json(bad).is_err(), "{bad}");
        }
        assert_eq!(Command::from_json(&" ".repeat(MAX_LINE + 1)), Err(BadCommand::TooLong));
    }

    #[test]
    fn words_are_read_as_a_person_types_them() {
        assert_eq!(Command::from_words(" Admit all "), Ok(Command::AdmitAll {}));
        assert_eq!(Command::from_words("deny Ann Lee"), Ok(Command::Deny { who: Who::Name("Ann Lee".into()) }));
        assert_eq!(Command::from_words("remove 2"), Ok(Command::Remove { who: Who::Number(2) }));
        assert!(Command::from_words("mute 3").is_err());
        assert!(Command::from_words("").is_err());
    }
}
