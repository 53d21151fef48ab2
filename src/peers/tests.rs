//! Tests of TCP channels against a listener that closes connections and sends invalid responses.

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

async fn listener() -> (TcpListener, Arc<dyn Channel>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    (listener, Tcp.channel(&Address { host: "127.0.0.1".into(), port }))
}

async fn request(stream: &mut TcpStream) -> Bytes {
    let size = stream.read_u32().await.expect("a size");
    let mut frame = vec![0; size as usize];
    stream.read_exact(&mut frame).await.expect("a frame");
    frame.into()
}

fn answer(throttle_time_ms: i32) -> Vec<u8> {
    let mut body = BytesMut::new();
    ResponseHeader::default().encode(&mut body, 0).expect("encodes");
    let response = ApiVersionsResponse::default().with_throttle_time_ms(throttle_time_ms);
    response.encode(&mut body, 3).expect("encodes");
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

async fn ask(channel: &dyn Channel, timeout: Duration) -> Result<i32, PeerError> {
    let request = ApiVersionsRequest::default();
    send(channel, 3, &request, timeout).await.map(|it| it.throttle_time_ms)
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_a_new_one_follows_a_broken_one() {
    let (listener, channel) = listener().await;
    let server = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.expect("a connection");
        for time in [1, 2] {
            let frame = request(&mut first).await;
            assert_eq!(frame[..4], [0, 18, 0, 3]);
            first.write_all(&answer(time)).await.expect("written");
        }
        drop(first);
        let (mut second, _) = listener.accept().await.expect("another connection");
        request(&mut second).await;
        second.write_all(&answer(3)).await.expect("written");
        second
    });
    for time in [1, 2] {
        assert_eq!(ask(&*channel, LONG).await.expect("an answer"), time);
    }
    // The client may not have received the end of the first connection yet.
    let third = match ask(&*channel, LONG).await {
        Err(PeerError::Broken { .. }) => ask(&*channel, LONG).await,
        answered => answered,
    };
    assert_eq!(third.expect("an answer"), 3);
    server.await.expect("the server's checks hold");
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_no_other_requests() {
    let (listener, channel) = listener().await;
    let server = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.expect("a connection");
        request(&mut first).await;
        let (mut second, _) = listener.accept().await.expect("another connection");
        // The client may have closed the first connection by now.
        let _ = first.write_all(&answer(1)).await;
        request(&mut second).await;
        second.write_all(&answer(2)).await.expect("written");
        second
    });
    let late = ask(&*channel, SHORT).await;
    assert!(matches!(late, Err(PeerError::TimedOut { .. })), "{late:?}");
    assert_eq!(ask(&*channel, LONG).await.expect("an answer"), 2);
    server.await.expect("the server's checks hold");
}

#[tokio::test]
async fn nobody_there_and_nonsense_are_errors() {
    let (listener, channel) = listener().await;
    let server = tokio::spawn(async move {
        for size in [0u32, 3, u32::MAX] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            request(&mut stream).await;
            stream.write_all(&size.to_be_bytes()).await.expect("written");
        }
        let (mut stream, _) = listener.accept().await.expect("a connection");
        request(&mut stream).await;
        stream.write_all(&[0, 0, 0, 5, 0, 0, 0, 0, 7]).await.expect("written");
        stream
    });
    for _ in 0..3 {
        let broken = ask(&*channel, LONG).await;
        assert!(matches!(broken, Err(PeerError::Broken { .. })), "{broken:?}");
    }
    let nonsense = ask(&*channel, LONG).await;
    assert!(matches!(nonsense, Err(PeerError::Decode(_))), "{nonsense:?}");
    drop(server.await.expect("the server's checks hold"));
    let nobody = ask(&*channel, LONG).await;
    assert!(
        matches!(nobody, Err(PeerError::Unreachable { .. } | PeerError::Broken { .. })),
        "{nobody:?}"
    );
}
