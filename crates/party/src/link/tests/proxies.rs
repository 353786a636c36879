//! Things that stand between a site and its coordinator: a line that is cut after so many bytes, a hospital's proxy.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A line to a server. Each connection that is opened takes the next of the budgets of bytes and breaks when it is used
/// up; after the last budget connections hold.
pub(super) struct Line {
    pub(super) address: SocketAddr,
    cut: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Line {
    pub(super) async fn to(server: SocketAddr, budgets: &[u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let budgets = Mutex::new(budgets.iter().copied().collect::<VecDeque<_>>());
        let cut = Arc::new(Notify::new());
        let cutting = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let budget = budgets.lock().unwrap().pop_front().unwrap_or(u64::MAX);
                let cut = Arc::clone(&cutting);
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let left = Arc::new(Mutex::new(budget));
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::select! {
                        () = pass(near_read, far_write, &left) => {}
                        () = pass(far_read, near_write, &left) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self { address, cut, task }
    }

    /// Cuts every connection that is open now.
    pub(super) fn cut(&self) {
        self.cut.notify_waiters();
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, left: &Mutex<u64>) {
    let mut block = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut block).await {
        let allowed = {
            let mut left = left.lock().unwrap();
            let allowed = (*left).min(read as u64);
            *left -= allowed;
            allowed
        };
        let allowed = usize::try_from(allowed).unwrap();
        if to.write_all(&block[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}

/// An HTTP proxy that knows CONNECT and, if it was told so, wants a name and password.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    /// Heads of the requests that came.
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl ConnectProxy {
    pub(crate) async fn start(wants: Option<&'static str>, refuses: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, wants, refuses, Arc::clone(&seen)));
            }
        });
        Self { address, heads, task }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut near: TcpStream, wants: Option<&str>, refuses: bool, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match near.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    heads.lock().unwrap().push(head.clone());
    let answer = if wants.is_some_and(|wanted| !head.contains(wanted)) {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"ward\"\r\ncontent-length: 0\r\n\r\n"
    } else if refuses {
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
    } else {
        "HTTP/1.1 200 Connection established\r\n\r\n"
    };
    let _ = near.write_all(answer.as_bytes()).await;
    if answer.contains(" 200 ") {
        let target = head.split(' ').nth(1).unwrap();
        if let Ok(mut far) = TcpStream::connect(target).await {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    }
}
