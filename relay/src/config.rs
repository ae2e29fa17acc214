//! The relay's configuration: one struct for flags, environment and file, and what comes out of it.
//!
//! A flag goes before the environment, the environment before the file, the file before the default. Where the
//! layers name different identities (a certificate here, `self-signed` there), the upper layer's identity counts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use conclave_protocol::descriptor::Region;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::gate::Limits;
use crate::reports::{self, Target};
use crate::server::{Deadlines, Forwarding, ServerConfig};
use crate::stamps::keeper::{self, RelayName};
use crate::tls::{Identity, SelfSigned};

/// The default UDP port; unassigned by IANA for UDP services of this kind, and what many QUIC servers use beside 443.
pub const DEFAULT_PORT: u16 = 4433;

/// New connections at once, in terms of the long-run rate: the same ratio as in [`Limits::default`].
const BURST_SECONDS: u32 = 4;

/// Reports in a minute: what the hub's own limit is.
const DEFAULT_REPORTS_PER_MINUTE: u32 = 1_000;
/// Longest hold, in ms: half of a frame. A frame that waits for longer is heard late by everybody.
const MAX_HOLD: u8 = 10;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "conclave-relay", version, about = "The Conclave relay: forwards meetings that it cannot listen to.")]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the relay can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve meetings on one UDP port, until SIGTERM or SIGINT.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeOptions>),
}

const SERVE_HELP: &str = "\
Examples:
  conclave-relay serve --self-signed
      Try it out. A new key at every start; give clients the pin that is printed.
  conclave-relay serve --self-signed /var/lib/conclave
      Keep the key, so that the pin stays the same.
  conclave-relay serve --listen [::]:443 --cert fullchain.pem --key privkey.pem --region eu
      A public relay with a certificate that clients trust without a pin.
  conclave-relay serve --self-signed /var/lib/conclave --moderator moderator.pub \\
      --reports dir:/var/lib/conclave/reports --stamp-keys /var/lib/conclave/stamps
      Take reports of users to your moderator, who opens them with \"conclave-moderate open\".
  conclave-relay serve ... --reports https://moderation.example/reports
  conclave-relay serve ... --reports nats:conclave.reports --nats-url nats://127.0.0.1:4222
      Hand reports to a web server, or to a stream of NATS.
  conclave-relay serve --self-signed --metrics 127.0.0.1:9433
      Show counters to a Prometheus on this machine: curl http://127.0.0.1:9433/metrics

When the relay is ready it prints one line of JSON on standard output:
  {\"event\":\"listening\",\"addr\":\"127.0.0.1:4433\",\"pin\":\"...\",\"region\":null,\"metrics\":null}

Every option can stand in the file given by --config, in TOML, under its long name without dashes in front:
  listen = \"[::]:443\"
  self-signed = \"/var/lib/conclave\"
A flag goes before its environment variable, that before the file.";

// Not a doc comment, because rustdoc takes the address in brackets for a link.
const LISTEN_HELP: &str = "UDP address to listen on; port 0 takes a free one, [::]:PORT serves IPv6 and IPv4 \
                           [default: 0.0.0.0:4433]";

/// Options of `serve`; every one may come from a flag, the environment or the file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// UDP address to listen on.
    #[arg(long, value_name = "ADDR", env = "CONCLAVE_RELAY_LISTEN", help = LISTEN_HELP)]
    pub listen: Option<SocketAddr>,

    /// Certificate (chain) in PEM that clients check against the roots they trust; needs --key
    #[arg(long, value_name = "FILE", env = "CONCLAVE_RELAY_CERT")]
    pub cert: Option<PathBuf>,

    /// Private key of --cert in PEM
    #[arg(long, value_name = "FILE", env = "CONCLAVE_RELAY_KEY")]
    pub key: Option<PathBuf>,

    /// Use a self-signed certificate, which clients know by the pin in the link. With a directory the key is kept
    /// there and the pin stays; without, or with the word "memory", each start has a new one
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = SelfSigned::MEMORY)]
    #[arg(env = "CONCLAVE_RELAY_SELF_SIGNED")]
    pub self_signed: Option<SelfSigned>,

    /// Where the relay stands, for meetings that allow certain regions only: 1 to 16 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", env = "CONCLAVE_RELAY_REGION", value_parser = parse_region)]
    #[serde(deserialize_with = "read_region")]
    pub region: Option<Region>,

    /// Connections at once [default: 10000]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_MAX_CONNECTIONS")]
    pub max_connections: Option<NonZeroU32>,

    /// Connections at once from one network (IPv4 /24, IPv6 /56) [default: 512]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_MAX_CONNECTIONS_PER_NETWORK")]
    pub max_connections_per_network: Option<NonZeroU32>,

    /// New connections per second from one network, four times as many at once [default: 50]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_CONNECTION_RATE_PER_NETWORK")]
    pub connection_rate_per_network: Option<NonZeroU32>,

    /// Handshakes at once; from half of it on, clients must prove their address first [default: 1024]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_MAX_HANDSHAKES")]
    pub max_handshakes: Option<NonZeroU32>,

    /// New connections per second above which clients must prove their address first [default: 200]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_RETRY_ABOVE")]
    pub retry_above: Option<NonZeroU32>,

    /// Milliseconds for which a frame may wait for those of other talkers, to leave with them in one packet: 0 to 10. No
    /// frame waits where none comes with it [default: 2]
    #[arg(long, value_name = "MS", env = "CONCLAVE_RELAY_HOLD", value_parser = clap::value_parser!(u8).range(..=i64::from(MAX_HOLD)))]
    pub hold: Option<u8>,

    /// Ask members to align their frame clocks, so that frames of a meeting leave together: a multiple of listeners for
    /// the same processor time [default: true]
    #[arg(long, env = "CONCLAVE_RELAY_ALIGN", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub align: Option<bool>,

    /// Where reports of users go, which only the moderators can open: dir:PATH (a file each), http://... or https://...
    /// (POST), nats:SUBJECT. Without it the relay takes no reports
    #[arg(long, value_name = "SINK", env = "CONCLAVE_RELAY_REPORTS")]
    pub reports: Option<Target>,

    /// Server of --reports nats:SUBJECT, such as nats://127.0.0.1:4222 or tls://USER:PASSWORD@nats.example
    #[arg(long, value_name = "URL", env = "CONCLAVE_RELAY_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,

    /// Bytes of reports that the directory of --reports dir:PATH may hold; more are refused [default: 1073741824]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_REPORTS_MAX_BYTES")]
    pub reports_max_bytes: Option<NonZeroU64>,

    /// Reports taken in any minute; more are refused [default: 1000]
    #[arg(long, value_name = "N", env = "CONCLAVE_RELAY_REPORTS_PER_MINUTE")]
    pub reports_per_minute: Option<NonZeroU16>,

    /// Public key of your moderator (moderator.pub of "conclave-moderate keygen"): clients can report to it, and it may
    /// ask this relay whether stamps are genuine
    #[arg(long, value_name = "FILE", env = "CONCLAVE_RELAY_MODERATOR")]
    pub moderator: Option<PathBuf>,

    /// Directory of the keys that seals are stamped with, one for each day, for a moderator and for other relays of a
    /// cluster. Without it they are in memory and new at every start
    #[arg(long, value_name = "DIR", env = "CONCLAVE_RELAY_STAMP_KEYS")]
    pub stamp_keys: Option<PathBuf>,

    /// Days after its own for which a stamp key is kept; then it is destroyed, and proves nothing any more [default: 30]
    #[arg(long, value_name = "DAYS", env = "CONCLAVE_RELAY_KEEP_STAMP_KEYS")]
    pub keep_stamp_keys: Option<u16>,

    /// Name of this relay or its cluster in stamp keys, for moderators [default: the region, or "relay"]
    #[arg(long, value_name = "NAME", env = "CONCLAVE_RELAY_NAME")]
    #[serde(deserialize_with = "read_name")]
    pub name: Option<RelayName>,

    /// TCP address of a page of counters for Prometheus, /metrics, with /healthz and /readyz. It has neither TLS nor a
    /// password, and who reads it sees how many people meet and when: keep it on loopback or on a network of your own [default: off]
    #[arg(long, value_name = "ADDR", env = "CONCLAVE_RELAY_METRICS")]
    pub metrics: Option<SocketAddr>,

    /// What to log to standard error: off, error, warn, info, debug, trace, or by module [default: info]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG")]
    pub log: Option<String>,

    /// TOML file with any of these options
    #[arg(long, value_name = "FILE", env = "CONCLAVE_RELAY_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// A text that can't be a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a region is 1 to {} of the characters a-z, 0-9 and -", Region::MAX_LEN)]
struct InvalidRegion;

/// The protocol's own type, so that a meeting's descriptor can name every region that a relay can have.
fn parse_region(name: &str) -> Result<Region, InvalidRegion> {
    Region::parse(name).map_err(|_| InvalidRegion)
}

fn read_region<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Region>, D::Error> {
    let name = String::deserialize(from)?;
    parse_region(&name).map(Some).map_err(D::Error::custom)
}

fn read_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RelayName>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

/// What `serve` runs with, after all layers and defaults.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// The server's own part.
    pub server: ServerConfig,
    /// Where the relay stands, if its operator says so.
    pub region: Option<Region>,
    /// Whether members are asked to align their frame clocks.
    pub aligns_clocks: bool,
    /// Where reports go, if anywhere.
    pub reports: Option<reports::Settings>,
    /// Reports taken in any minute.
    pub reports_per_minute: u32,
    /// The file with the operator's moderator's public key.
    pub moderator: Option<PathBuf>,
    /// How stamp keys are kept.
    pub stamp_keys: keeper::Settings,
    /// Where its counters are shown, by TCP, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// What to log, as a filter of `tracing-subscriber`.
    pub log: String,
}

/// A configuration that can't be used. Always the operator's.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file isn't TOML, or has options that don't exist or values that don't fit.
    #[error("the configuration {} is wrong: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// The hold is too long.
    #[error("hold: a frame may wait for 0 to {MAX_HOLD} ms")]
    Hold,
    /// No identity is given.
    #[error(
        "the relay needs a certificate: give --cert FILE and --key FILE, or --self-signed to make one \
         (--self-signed DIR keeps it, so that its pin stays the same)"
    )]
    NoIdentity,
    /// Half of a certificate is given.
    #[error("--cert and --key go together: the option {0} is missing")]
    HalfIdentity(&'static str),
    /// Two identities are given in one place.
    #[error("--self-signed and --cert/--key exclude each other: give one of them")]
    TwoIdentities,
    /// Reports go to NATS, and nobody said where that is.
    #[error("--reports nats:SUBJECT needs the server: give --nats-url, such as --nats-url nats://127.0.0.1:4222")]
    NoNatsUrl,
}

/// Parses the command line of this process and its environment. Ends the process on `--help`, `--version` and
/// wrong arguments (status 2).
#[must_use]
pub fn command_from_process() -> Command {
    let matches = Cli::command().get_matches();
    command_from(&matches).unwrap_or_else(|error| error.exit())
}

fn command_from(matches: &ArgMatches) -> Result<Command, clap::Error> {
    let Cli { command } = Cli::from_arg_matches(matches)?;
    match command {
        Command::Serve(mut options) => {
            if let Some(("serve", given)) = matches.subcommand() {
                options.prefer_identity_of_flags(|id| given.value_source(id));
            }
            Ok(Command::Serve(options))
        }
    }
}

impl ServeOptions {
    /// Adds the configuration file and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`], which says what to change.
    pub fn resolve(self) -> Result<ServeSettings, ConfigError> {
        let options = match self.config.clone() {
            Some(path) => {
                self.check_one_identity()?;
                self.over(Self::from_file(&path)?)
            }
            None => self,
        };
        let identity = options.identity()?;
        let default = Limits::default();
        let or = |given: Option<NonZeroU32>, default| given.map_or(default, NonZeroU32::get);
        let prefix_rate = or(options.connection_rate_per_network, default.prefix_rate);
        let limits = Limits {
            max_connections: or(options.max_connections, default.max_connections),
            max_per_prefix: or(options.max_connections_per_network, default.max_per_prefix),
            prefix_rate,
            prefix_burst: prefix_rate.saturating_mul(BURST_SECONDS),
            max_half_open: or(options.max_handshakes, default.max_half_open),
            unvalidated_rate: or(options.retry_above, default.unvalidated_rate),
        };
        let forwarding = options.forwarding()?;
        let listen = options.listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)));
        let (reports, stamp_keys) = (options.sink()?, options.stamp_key_settings());
        let reports_per_minute =
            options.reports_per_minute.map_or(DEFAULT_REPORTS_PER_MINUTE, |rate| rate.get().into());
        Ok(ServeSettings {
            server: ServerConfig { listen, identity, limits, deadlines: Deadlines::default(), forwarding },
            region: options.region,
            aligns_clocks: options.align.unwrap_or(true),
            reports,
            reports_per_minute,
            moderator: options.moderator,
            stamp_keys,
            metrics: options.metrics,
            log: options.log.unwrap_or_else(|| "info".into()),
        })
    }

    fn forwarding(&self) -> Result<Forwarding, ConfigError> {
        let default = Forwarding::default();
        match self.hold {
            // clap has looked at arguments, and nobody at the file.
            Some(ms) if ms > MAX_HOLD => Err(ConfigError::Hold),
            hold => {
                let hold = hold.map_or(default.hold, |ms| Duration::from_millis(ms.into()));
                let aligns = self.align.unwrap_or(true);
                Ok(if aligns { Forwarding::aligned(hold) } else { Forwarding { hold, ..default } })
            }
        }
    }

    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let options: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        options.check_one_identity()?;
        Ok(options)
    }

    /// These options, and where they say nothing those of `lower`.
    fn over(self, lower: Self) -> Self {
        // Naming every field makes a new one that isn't merged a compile error.
        let Self {
            listen,
            cert,
            key,
            self_signed,
            region,
            max_connections,
            max_connections_per_network,
            connection_rate_per_network,
            max_handshakes,
            retry_above,
            hold,
            align,
            reports,
            nats_url,
            reports_max_bytes,
            reports_per_minute,
            moderator,
            stamp_keys,
            keep_stamp_keys,
            name,
            metrics,
            log,
            config,
        } = self;
        let by_files = cert.is_some() || key.is_some();
        let by_self = self_signed.is_some();
        Self {
            listen: listen.or(lower.listen),
            cert: cert.or(lower.cert.filter(|_| !by_self)),
            key: key.or(lower.key.filter(|_| !by_self)),
            self_signed: self_signed.or(lower.self_signed.filter(|_| !by_files)),
            region: region.or(lower.region),
            max_connections: max_connections.or(lower.max_connections),
            max_connections_per_network: max_connections_per_network.or(lower.max_connections_per_network),
            connection_rate_per_network: connection_rate_per_network.or(lower.connection_rate_per_network),
            max_handshakes: max_handshakes.or(lower.max_handshakes),
            retry_above: retry_above.or(lower.retry_above),
            hold: hold.or(lower.hold),
            align: align.or(lower.align),
            reports: reports.or(lower.reports),
            nats_url: nats_url.or(lower.nats_url),
            reports_max_bytes: reports_max_bytes.or(lower.reports_max_bytes),
            reports_per_minute: reports_per_minute.or(lower.reports_per_minute),
            moderator: moderator.or(lower.moderator),
            stamp_keys: stamp_keys.or(lower.stamp_keys),
            keep_stamp_keys: keep_stamp_keys.or(lower.keep_stamp_keys),
            name: name.or(lower.name),
            metrics: metrics.or(lower.metrics),
            log: log.or(lower.log),
            config: config.or(lower.config),
        }
    }

    /// clap merges flags and environment field by field; an identity is more than one field.
    fn prefer_identity_of_flags(&mut self, source: impl Fn(&str) -> Option<ValueSource>) {
        let by_flag = |id| source(id) == Some(ValueSource::CommandLine);
        let (files, own) = (by_flag("cert") || by_flag("key"), by_flag("self_signed"));
        if files && !own {
            self.self_signed = None;
        }
        if own && !files {
            self.cert = None;
            self.key = None;
        }
    }

    fn check_one_identity(&self) -> Result<(), ConfigError> {
        if self.self_signed.is_some() && (self.cert.is_some() || self.key.is_some()) {
            return Err(ConfigError::TwoIdentities);
        }
        Ok(())
    }

    fn sink(&self) -> Result<Option<reports::Settings>, ConfigError> {
        let Some(target) = self.reports.clone() else { return Ok(None) };
        let nats_url = match (&target, &self.nats_url) {
            (Target::Nats(_), None) => return Err(ConfigError::NoNatsUrl),
            (_, url) => url.clone().unwrap_or_default(),
        };
        let max_bytes = self.reports_max_bytes.map_or(reports::DEFAULT_MAX_BYTES, NonZeroU64::get);
        Ok(Some(reports::Settings { target, nats_url, max_bytes }))
    }

    fn stamp_key_settings(&self) -> keeper::Settings {
        // Every region is a name that a relay can have.
        let region = self.region.as_ref().and_then(|region| region.as_str().parse().ok());
        keeper::Settings {
            store: self.stamp_keys.clone().map_or(keeper::Store::Memory, keeper::Store::Directory),
            keep_days: self.keep_stamp_keys.unwrap_or(keeper::DEFAULT_KEEP_DAYS),
            relay: self.name.clone().or(region).unwrap_or_default(),
        }
    }

    fn identity(&self) -> Result<Identity, ConfigError> {
        self.check_one_identity()?;
        match (&self.self_signed, &self.cert, &self.key) {
            (Some(own), ..) => Ok(Identity::SelfSigned(own.clone())),
            (None, Some(cert), Some(key)) => Ok(Identity::Files { cert: cert.clone(), key: key.clone() }),
            (None, Some(_), None) => Err(ConfigError::HalfIdentity("--key")),
            (None, None, Some(_)) => Err(ConfigError::HalfIdentity("--cert")),
            (None, None, None) => Err(ConfigError::NoIdentity),
        }
    }
}

#[cfg(test)]
mod tests;
