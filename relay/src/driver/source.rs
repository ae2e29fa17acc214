//! From which of this machine's addresses packets go to somebody. A socket that has all of them chooses by the routes, and a
//! packet that has to say what would be chosen anyway can't leave with others in one call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where one peer's packets go, and what they have to say about where they come from.
#[derive(Default)]
pub(crate) struct Source {
    path: Option<(SocketAddr, IpAddr)>,
    is_usual: bool,
}

impl Source {
    /// What a packet from `local` to `remote` has to say: nothing where it would come from there anyway. The system is asked
    /// when these change. Should its routes change later, packets come from elsewhere and are not taken: media packets are
    /// found not to come through then, and QUIC's always say it.
    pub(crate) fn of(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> Option<IpAddr> {
        let path = (remote, local?);
        if self.path != Some(path) {
            self.path = Some(path);
            self.is_usual = is_usual(path.0, path.1);
        }
        local.filter(|_| !self.is_usual)
    }
}

/// Whether a packet to `remote` that says nothing comes from `local`. No packet is sent to find out.
fn is_usual(remote: SocketAddr, local: IpAddr) -> bool {
    // IPv4 on a socket of IPv6 (RFC 4291 §2.5.5.2).
    let remote = match remote.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), remote.port()),
        IpAddr::V6(_) => remote,
    };
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(remote)?;
        socket.local_addr()
    });
    chosen.is_ok_and(|chosen| chosen.ip() == local.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_where_it_comes_from_only_if_it_is_not_from_where_it_would_come_anyway() {
        let remote = |text: &str| text.parse::<SocketAddr>().unwrap();
        let local = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let mut source = Source::default();
        let said = [
            ("127.0.0.9:4433", None),
            ("127.0.0.9:4433", local("127.0.0.1")),
            ("127.0.0.9:4433", local("127.0.0.2")),
            ("127.0.0.9:4433", local("127.0.0.1")),
            ("[::ffff:127.0.0.9]:4433", local("127.0.0.1")),
            ("[::ffff:127.0.0.9]:4433", local("::ffff:127.0.0.1")),
            ("[::ffff:127.0.0.9]:4433", local("::ffff:127.0.0.2")),
            ("127.0.0.9:4433", local("::1")),
        ]
        .map(|(to, from)| source.of(remote(to), from));
        let named = |text: &str| local(text);
        let expected = [None, None, named("127.0.0.2"), None, None, None, named("::ffff:127.0.0.2"), named("::1")];
        assert_eq!(said, expected);
    }
}
