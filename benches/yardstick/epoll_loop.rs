//! The floor of the kernel: one thread, one epoll, edge-triggered, one read and one write a request.

use std::io::{ErrorKind, Read};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;
use socket2::Socket;

use super::{INPUT_BYTES, answer_all};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// Names the listener among the events.
const LISTENER: u64 = u64::MAX;

struct Connection {
    socket: Socket,
    /// The beginning of a request whose rest has not arrived.
    rest: Vec<u8>,
}

pub fn serve(listener: &Socket) {
    let poll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll");
    epoll::add(&poll, listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("a listener");
    let mut connections = Slab::new();
    let (mut input, mut output) = (vec![0; INPUT_BYTES], Vec::with_capacity(INPUT_BYTES));
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => accept_all(listener, &poll, &mut connections),
                key => {
                    let key = key as usize;
                    if connections.get_mut(key).is_some_and(|it| !turn(it, &mut input, &mut output)) {
                        connections.remove(key);
                    }
                }
            }
        }
    }
}

fn accept_all(listener: &Socket, poll: &rustix::fd::OwnedFd, connections: &mut Slab<Connection>) {
    while let Ok((socket, _)) = listener.accept() {
        socket.set_nonblocking(true).expect("an option");
        let entry = connections.vacant_entry();
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poll, &socket, EventData::new_u64(entry.key() as u64), flags).expect("a connection");
        entry.insert(Connection { socket, rest: Vec::new() });
    }
}

/// Answers what is there; false ends the connection.
fn turn(connection: &mut Connection, input: &mut [u8], output: &mut Vec<u8>) -> bool {
    loop {
        let held = connection.rest.len();
        input[..held].copy_from_slice(&connection.rest);
        match (&mut &connection.socket).read(&mut input[held..]) {
            Ok(0) => return false,
            Ok(count) => {
                let filled = held + count;
                let taken = answer_all(&input[..filled], output);
                connection.rest.clear();
                connection.rest.extend_from_slice(&input[taken..filled]);
                let sent = connection.socket.send(output).is_ok_and(|sent| sent == output.len());
                output.clear();
                if !sent || filled < input.len() {
                    return sent;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
