//! Measures the least CPU time that a broker needs on this machine: from a socket through a CRC
//! into a file, and from a file into a socket, with nothing else. `scripts/measure-load` compares a
//! broker with it. The CPU seconds are those of the broker's side of the socket.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    thread,
};

use rustix::time::{ClockId, clock_gettime};

const BYTES: usize = 2 << 30;
/// Bytes of a read, the size of a producer's batch.
const CHUNK: usize = 64 << 10;
const SENDFILE: usize = 1 << 20;

fn main() -> io::Result<()> {
    let dir = std::env::var_os("CARGO_TARGET_TMPDIR").unwrap_or_else(|| "target".into());
    let path = std::path::Path::new(&dir).join("floor.data");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let producer = thread::spawn(move || send(address));
    let produce = cpu_per_gib(|| receive(&listener, &file))?;
    producer.join().expect("the producer ends")?;
    let consumer = thread::spawn(move || drain(address));
    let consume = cpu_per_gib(|| serve(&listener, &file))?;
    consumer.join().expect("the consumer ends")?;
    println!("socket -> crc32c -> file: {produce:.2} CPU s per GiB");
    println!("file -> socket (sendfile): {consume:.2} CPU s per GiB");
    fs::remove_file(path)
}

/// CPU seconds per GiB that this thread spends in `work`.
fn cpu_per_gib(work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let seconds = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
    };
    let before = seconds();
    work()?;
    Ok((seconds() - before) / (BYTES as f64 / f64::from(1 << 30)))
}

fn send(to: SocketAddr) -> io::Result<()> {
    let chunk = vec![7; CHUNK];
    let mut stream = TcpStream::connect(to)?;
    (0..BYTES / CHUNK).try_for_each(|_| stream.write_all(&chunk))
}

fn receive(listener: &TcpListener, file: &File) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut chunk = vec![0; CHUNK];
    let mut crcs = 0;
    for n in 0..BYTES / CHUNK {
        stream.read_exact(&mut chunk)?;
        crcs ^= crc32c::crc32c(&chunk);
        file.write_all_at(&chunk, (n * CHUNK) as u64)?;
    }
    std::hint::black_box(crcs);
    Ok(())
}

fn drain(from: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(from)?;
    let mut buffer = vec![0; SENDFILE];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn serve(listener: &TcpListener, file: &File) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut position = 0;
    while position < BYTES as u64 {
        if rustix::fs::sendfile(&stream, file, Some(&mut position), SENDFILE)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
