//! Loopback as if it were a network: a relay that hands on what it reads only after a while, in
//! both directions. What is under way is not limited, so bandwidth stays what it is. Not every
//! kernel has the queueing discipline that does it below TCP.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes of one read.
const READ: usize = 64 * 1024;
/// Reads under way in one direction: 64 MiB, more than any network holds.
const UNDER_WAY: usize = 1024;

/// Relays connections to `listener` to `target` until it is dropped, each byte `one_way` late.
pub async fn relay(listener: TcpListener, target: String, one_way: Duration) -> Result<()> {
    loop {
        let (near, _) = listener.accept().await.context("failed to accept")?;
        let target = target.clone();
        tokio::spawn(async move {
            // A connection that breaks here breaks for both ends, who tell of it.
            let _ = both(near, &target, one_way).await;
        });
    }
}

async fn both(near: TcpStream, target: &str, one_way: Duration) -> std::io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::try_join!(
        late(near_read, far_write, one_way),
        late(far_read, near_write, one_way)
    )?;
    Ok(())
}

/// One direction. The reader sends what it read with the time at which it is due; the channel's
/// end is the connection's.
async fn late(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    one_way: Duration,
) -> std::io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; READ];
        loop {
            let got = from.read(&mut buffer).await?;
            let bytes = buffer.get(..got).unwrap_or_default().to_vec();
            if got == 0
                || sender
                    .send((Instant::now() + one_way, bytes))
                    .await
                    .is_err()
            {
                return std::io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_takes_a_round_trip_and_its_bytes_are_whole() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let relayed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = relayed.local_addr().unwrap();
        let one_way = Duration::from_millis(30);
        tokio::spawn(relay(relayed, target, one_way));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let start = Instant::now();
        let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let (mut read, mut write) = stream.split();
        let mut got = Vec::new();
        let ((), _) = tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            },
            async { read.read_to_end(&mut got).await.unwrap() }
        );
        assert!(start.elapsed() >= 2 * one_way);
        assert_eq!(got, sent);
    }
}
