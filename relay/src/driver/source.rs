//! From which of this machine's addresses packets go to somebody. A socket that has all of them chooses by the routes, and a
//! packet that has to say what would be chosen anyway can't leave with others in one call.
//!
//! What would be chosen is asked for another port of this machine. Where routes depend on that, the answer is wrong, and where
//! they change, it becomes wrong; then packets don't arrive, and [`Source::insist`] mends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where one peer's packets go, and what they have to say about where they come from.
#[derive(Default)]
pub(crate) struct Source {
    path: Option<(SocketAddr, IpAddr)>,
    is_usual: bool,
}

impl Source {
    /// What a packet from `local` to `remote` has to say: nothing where it would come from there anyway. The system is asked
    /// when these change.
    pub(crate) fn of(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> Option<IpAddr> {
        let path = (remote, local?);
        if self.path != Some(path) {
            self.path = Some(path);
            self.is_usual = is_usual(path.0, path.1);
        }
        local.filter(|_| !self.is_usual)
    }

    /// Packets that say nothing don't arrive: from now on they say it, until the path is another.
    pub(crate) fn insist(&mut self) {
        self.is_usual = false;
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
    fn who_insists_does_so_until_the_path_is_another() {
        let (near, far) = (SocketAddr::from(([127, 0, 0, 9], 1)), SocketAddr::from(([127, 0, 0, 9], 2)));
        let (mut source, local) = (Source::default(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(source.of(near, Some(local)), None);
        source.insist();
        assert_eq!(source.of(near, Some(local)), Some(local));
        assert_eq!(source.of(far, Some(local)), None);
    }

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
        let expected = [None, None, local("127.0.0.2"), None, None, None, local("::ffff:127.0.0.2"), local("::1")];
        assert_eq!(said, expected);
    }
}
