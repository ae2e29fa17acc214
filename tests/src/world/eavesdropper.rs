//! Sees every byte that crosses the relay, as the relay itself does, and knows what to look for.

use std::collections::HashMap;

/// What is planted must be at least this long: shorter things are found by chance.
const SHORTEST: usize = 8;

/// Looks for planted secrets.
pub struct Eavesdropper {
    /// Whether a secret begins with these two bytes; spares most look-ups.
    begins: Vec<bool>,
    secrets: HashMap<[u8; SHORTEST], Vec<(Vec<u8>, &'static str)>>,
    planted: usize,
    searched: u64,
}

impl Default for Eavesdropper {
    fn default() -> Self {
        Self { begins: vec![false; 1 << 16], secrets: HashMap::new(), planted: 0, searched: 0 }
    }
}

impl Eavesdropper {
    /// Has it look for `secret`, which is called `what` when it is found.
    pub fn plant(&mut self, secret: &[u8], what: &'static str) {
        let head = secret.first_chunk::<SHORTEST>();
        assert!(head.is_some(), "{what} is too short to look for");
        let Some(head) = head else { return };
        self.begins[usize::from(u16::from_be_bytes([head[0], head[1]]))] = true;
        self.secrets.entry(*head).or_default().push((secret.to_vec(), what));
        self.planted += 1;
    }

    /// Searches bytes that crossed the relay; the name of a secret that is in them.
    pub fn find_secret(&mut self, bytes: &[u8]) -> Option<&'static str> {
        self.searched += bytes.len() as u64;
        (0..bytes.len().saturating_sub(SHORTEST - 1)).find_map(|at| self.secret_at(&bytes[at..]))
    }

    fn secret_at(&self, bytes: &[u8]) -> Option<&'static str> {
        if !self.begins[usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))] {
            return None;
        }
        let candidates = self.secrets.get(bytes.first_chunk::<SHORTEST>()?)?;
        candidates.iter().find(|(secret, _)| bytes.starts_with(secret)).map(|(_, what)| *what)
    }

    /// How many secrets it looks for, and in how many bytes it has looked.
    pub fn effort(&self) -> (usize, u64) {
        (self.planted, self.searched)
    }
}
