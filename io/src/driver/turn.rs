//! The loop: one thread that owns the node and everything that feeds it.
//!
//! One [`Loop::turn`]: wait until the next deadline, at most [`WAIT_MAX`]; read the clock once; note what mio says;
//! do what other threads ask; receive one batch per socket that has something; tell the node the time if a deadline
//! came; hear its events; visit connections that can move bytes; drain the node. Nothing is decided here: each part
//! ([`Traffic`], [`Surroundings`], [`Programs`], [`Saver`]) is handed what concerns it, with the node to tell.
//!
//! It is made at start, runs until the node has left, and ends early only if the operating system takes away its poll.
//! However it ends, dropping it breaks off local connections, ends every stream, and writes what is still to be kept.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use handfast_core::time::earliest;
use handfast_core::{Event, Instant, Node, StreamKey};
use mio::{Events, Poll};

use super::command::Command;
use super::programs::Programs;
use super::surroundings::Surroundings;
use super::tokens::Source;
use super::traffic::Traffic;
use crate::save::Saver;

/// The loop wakes at least this often, to look after what sends no notice: sleep of the machine, the wall clock. Cheap
/// enough to be no load, often enough to be back soon after it was woken.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// A deadline nearer than this waits so long all the same: the operating system's waiting is no finer.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How long the node may take to say goodbye before the loop ends without.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// mio events taken per turn; more come with the next.
const EVENTS_PER_TURN: usize = 512;

/// The ends of the queues by which other threads reach the loop.
pub(super) struct Queues {
    commands: Receiver<Command>,
    rung: Receiver<StreamKey>,
}

impl Queues {
    /// Wishes and news, and the streams that programs rang for.
    pub(super) fn new(commands: Receiver<Command>, rung: Receiver<StreamKey>) -> Self {
        Self { commands, rung }
    }
}

/// Everything the thread owns.
pub(super) struct Loop {
    node: Node,
    now: Instant,
    poll: Poll,
    mio_events: Events,
    queues: Queues,
    traffic: Traffic,
    programs: Programs,
    surroundings: Surroundings,
    saver: Saver,
    housekeeping: Instant,
    /// The node is leaving; by this time the loop ends anyway.
    leaving: Option<Instant>,
    /// The node has left.
    left: bool,
}

impl Loop {
    /// A loop around a node that knows its surroundings already.
    pub(super) fn new(
        node: Node,
        poll: Poll,
        queues: Queues,
        traffic: Traffic,
        surroundings: Surroundings,
        saver: Saver,
        programs: Programs,
    ) -> Self {
        let now = surroundings.now();
        Self {
            node,
            now,
            poll,
            mio_events: Events::with_capacity(EVENTS_PER_TURN),
            queues,
            traffic,
            surroundings,
            saver,
            housekeeping: now + WAIT_MAX,
            leaving: None,
            left: false,
            programs,
        }
    }

    /// Runs to its end.
    pub(super) fn run(mut self) {
        self.drain();
        while !self.is_over() {
            if let Err(error) = self.turn() {
                tracing::error!("the event loop ends: {error}");
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        (self.left && self.surroundings.is_released()) || self.leaving.is_some_and(|until| self.now >= until)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.now = self.surroundings.now();
        self.take_hints();
        self.take_queues();
        self.traffic.receive(&mut self.node, self.now);
        self.tell_time();
        // Before the visits, so that they find what these datagrams brought, and know why a stream is gone.
        self.take_events();
        self.programs.accept(&mut self.node, self.now);
        self.programs.visit(&mut self.node, self.now);
        self.drain();
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let busy = self.programs.is_busy(self.now) || self.traffic.is_busy() || self.surroundings.is_busy();
        let timeout = if busy {
            Duration::ZERO
        } else {
            let mut next = earliest(self.node.poll_timeout(), self.programs.next_deadline(self.now));
            next = earliest(next, self.leaving);
            next = earliest(next, self.traffic.next_deadline());
            next = earliest(next, self.surroundings.next_deadline());
            let until = earliest(next, Some(self.housekeeping)).unwrap_or(self.housekeeping);
            (until - self.now).clamp(WAIT_MIN, WAIT_MAX)
        };
        match self.poll.poll(&mut self.mio_events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Notes what mio says. Events are hints: acting on one too many harms nothing.
    fn take_hints(&mut self) {
        for event in &self.mio_events {
            let broken = event.is_error();
            let readable = event.is_readable() || event.is_read_closed() || broken;
            let writable = event.is_writable() || event.is_write_closed() || broken;
            match Source::of(event.token()) {
                Some(source @ (Source::Udp(_) | Source::Tcp(_) | Source::TcpListener(_))) => {
                    self.traffic.on_hint(source, readable, writable);
                }
                Some(Source::Listener(number)) => self.programs.on_listener(number),
                Some(Source::Connection(index)) => {
                    self.programs.on_connection(&mut self.node, self.now, index, readable, writable, broken);
                }
                Some(Source::PortMap) => self.surroundings.set_port_map_readable(),
                Some(Source::Network) => self.surroundings.on_notice(self.now),
                // The waker: queues are looked at in every turn.
                Some(Source::Waker) | None => {}
            }
        }
    }

    fn take_queues(&mut self) {
        while let Ok(command) = self.queues.commands.try_recv() {
            match command {
                Command::Wish(wish) => self.programs.on_wish(&mut self.node, self.now, wish),
                Command::News(news) => self.surroundings.on_news(&mut self.node, self.now, news),
                Command::Leave => self.leave(),
            }
        }
        while let Ok(stream) = self.queues.rung.try_recv() {
            self.programs.on_rung(stream);
        }
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(self.now + LEAVE_MAX);
            self.surroundings.release(self.now);
            self.node.leave(self.now);
        }
    }

    /// Deadlines: the node's and our own.
    fn tell_time(&mut self) {
        self.surroundings.tell(&mut self.node, self.now, self.traffic.main());
        if let Some(report) = self.surroundings.take_port_mapping() {
            self.programs.set_port_mapping(report);
        }
        if self.now >= self.housekeeping {
            self.housekeeping = self.now + WAIT_MAX;
            self.traffic.keep_house(self.now);
            self.programs.keep_house(self.now);
        }
        self.programs.give_up(&mut self.node, self.now);
        if self.node.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.node.handle_timeout(self.now);
        }
    }

    /// Carries out what the node wants, until it wants nothing more.
    fn drain(&mut self) {
        loop {
            self.traffic.send(&mut self.node, self.now);
            if !self.take_events() {
                break;
            }
        }
        self.traffic.flush();
    }

    /// Carries out what the node says; whether it said anything.
    fn take_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.node.poll_event() {
            any = true;
            if self.traffic.on_event(&mut self.node, self.now, &event) {
                continue;
            }
            match event {
                Event::Save(item) => self.saver.keep(item),
                event => {
                    self.left |= matches!(event, Event::Left);
                    self.programs.on_event(&mut self.node, self.now, event);
                }
            }
        }
        any
    }
}
