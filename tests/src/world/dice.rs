//! Randomness from a seed: one stream for the network, and one for each client, which remembers what it gave.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _, TryCryptoRng, TryRng};

/// Decides what happens in a world.
pub struct Dice(ChaCha20Rng);

impl Dice {
    /// The dice of a seed; those of another `stream` fall differently.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// True with a probability of `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits fill an f64's mantissa, so every value is one of [0, 1).
        p > 0.0 && ((self.0.next_u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// A time up to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.0.next_u64() % (nanos + 1))
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// What a client draws in pieces of 32 bytes and more. All of it is secret: keys, their seeds, fresh values. Public
/// random values (nonces, names of chains) are shorter.
#[derive(Clone, Default)]
pub struct Drawn(Arc<Mutex<Vec<[u8; 32]>>>);

impl Drawn {
    /// What was drawn since the last call.
    pub fn take(&self) -> Vec<[u8; 32]> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A client's source of randomness.
pub struct ClientRng {
    rng: ChaCha20Rng,
    drawn: Drawn,
}

impl ClientRng {
    /// The randomness of the client number `client` of a world.
    pub fn new(seed: u64, client: u64, drawn: Drawn) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        rng.set_stream(1_000 + client);
        Self { rng, drawn }
    }
}

impl TryRng for ClientRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(out);
        if let Some(secret) = out.first_chunk::<32>() {
            self.drawn.0.lock().unwrap_or_else(PoisonError::into_inner).push(*secret);
        }
        Ok(())
    }
}

impl TryCryptoRng for ClientRng {}
