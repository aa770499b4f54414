// rust-blk - the peer of eng/bench.sh that stands for Rust's vhost-user-backend: a small vhost-user-blk back-end on the
// crates of rust-vmm, with the queue loop that devices on them have: no notifications while draining, one call for each
// batch, notifications again, once more when the ring is not empty.
//
//   rust-blk --socket PATH --engine null|sync|uring [--file PATH] [--direct] [--size BYTES] [--queues N] [--poll-us N]
//            [--queue-size N] [--early N]
//
// Engines: null (no data), sync (preadv, pwritev), uring (an io_uring for each queue; its completion descriptor is one
// more event of the crate's epoll loop). With --poll-us the loop looks that long before it sleeps; with --early it calls after every
// Nth request of a batch, too.
// Not here: write zeroes, discard, configuration writes, reconnection with requests in flight.
use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use io_uring::{opcode, types, IoUring};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::Listener;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

type GM = GuestMemoryMmap<()>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GM>>;

#[derive(Clone, Copy, PartialEq)]
enum Engine {
    Null,
    Sync,
    Uring,
}

struct Pending {
    head: u16,
    status: *mut u8,
    iov: Vec<libc::iovec>,
    len: u32,
    busy: bool,
}
struct QState {
    ring: Option<IoUring>,
    evt: Option<EventFd>,
    slots: Vec<Pending>,
    free: Vec<u32>,
    inflight: usize,
}
unsafe impl Send for QState {}

struct Blk {
    mem: GuestMemoryAtomic<GM>,
    file: Option<File>,
    capacity: u64,
    engine: Engine,
    nq: usize,
    qsize: usize,
    poll: Duration,
    early: usize,
    event_idx: AtomicBool,
    q: Vec<Mutex<QState>>,
}

struct Req {
    kind: u32,
    sector: u64,
    iov: Vec<libc::iovec>,
    status: *mut u8,
    data_len: u32,
}

impl Blk {
    fn parse(&self, mem: &GM, chain: Chain) -> Option<Req> {
        let mut kind = u32::MAX;
        let mut sector = 0;
        let mut iov: Vec<libc::iovec> = Vec::with_capacity(4);
        let mut total = 0u32;
        let mut last_w: Option<libc::iovec> = None;
        let mut first = true;
        for d in chain {
            if first {
                if d.is_write_only() || d.len() < 16 {
                    return None;
                }
                kind = mem.read_obj::<u32>(d.addr()).ok()?;
                sector = mem.read_obj::<u64>(vm_memory::GuestAddress(d.addr().0 + 8)).ok()?;
                first = false;
                continue;
            }
            let s = mem.get_slice(d.addr(), d.len() as usize).ok()?;
            let v = libc::iovec {
                iov_base: s.ptr_guard_mut().as_ptr() as *mut _,
                iov_len: d.len() as usize,
            };
            if d.is_write_only() {
                last_w = Some(v);
            }
            iov.push(v);
            total = total.wrapping_add(d.len());
        }
        let st = last_w?;
        iov.pop();
        if st.iov_len != 1 {
            return None;
        }
        Some(Req {
            kind,
            sector,
            iov,
            status: st.iov_base as *mut u8,
            data_len: total - 1,
        })
    }

    fn in_range(&self, r: &Req) -> bool {
        r.sector
            .checked_mul(512)
            .and_then(|o| o.checked_add(r.data_len as u64))
            .map_or(false, |e| e <= self.capacity)
    }

    fn simple(&self, r: &Req) -> u8 {
        match r.kind {
            0 | 1 => {
                if !self.in_range(r) {
                    return 1;
                }
                if self.engine == Engine::Null {
                    return 0;
                }
                let fd = self.file.as_ref().unwrap().as_raw_fd();
                let off = (r.sector * 512) as i64;
                let n = unsafe {
                    if r.kind == 0 {
                        libc::preadv(fd, r.iov.as_ptr(), r.iov.len() as i32, off)
                    } else {
                        libc::pwritev(fd, r.iov.as_ptr(), r.iov.len() as i32, off)
                    }
                };
                if n == r.data_len as isize {
                    0
                } else {
                    1
                }
            }
            4 => {
                if let Some(f) = &self.file {
                    if f.sync_data().is_err() {
                        return 1;
                    }
                }
                0
            }
            8 => {
                let id = b"rust-blk\0\0\0\0\0\0\0\0\0\0\0\0";
                if let Some(v) = r.iov.first() {
                    unsafe { std::ptr::copy_nonoverlapping(id.as_ptr(), v.iov_base as *mut u8, v.iov_len.min(20)) }
                }
                0
            }
            _ => 2,
        }
    }

    // returns true when something was taken from the ring
    fn process(&self, vring: &VringRwLock, qi: usize) -> bool {
        let guard = self.mem.memory();
        let mut st = vring.get_mut();
        let mut qs = self.q[qi].lock().unwrap();
        let (mut any, mut used, mut queued, mut done) = (false, false, 0, 0usize);
        if self.engine == Engine::Uring {
            used |= self.harvest(&guard, &mut st, &mut qs);
        }
        loop {
            if self.engine == Engine::Uring && qs.free.is_empty() {
                break;
            }
            let Some(chain) = st.get_queue_mut().pop_descriptor_chain(guard.clone()) else {
                break;
            };
            any = true;
            let head = chain.head_index();
            let Some(r) = self.parse(&guard, chain) else {
                st.get_queue_mut().add_used(&*guard, head, 0).unwrap();
                used = true;
                continue;
            };
            if self.engine == Engine::Uring && r.kind <= 1 && self.in_range(&r) {
                let slot = qs.free.pop().unwrap();
                let off = r.sector * 512;
                let p = &mut qs.slots[slot as usize];
                p.head = head;
                p.status = r.status;
                p.iov = r.iov;
                p.len = r.data_len;
                p.busy = true;
                let fd = types::Fixed(0);
                let (ptr, n) = (p.iov.as_ptr(), p.iov.len() as u32);
                let e = if n == 1 {
                    let v = p.iov[0];
                    if r.kind == 0 {
                        opcode::Read::new(fd, v.iov_base as *mut u8, v.iov_len as u32)
                            .offset(off)
                            .build()
                    } else {
                        opcode::Write::new(fd, v.iov_base as *const u8, v.iov_len as u32)
                            .offset(off)
                            .build()
                    }
                } else if r.kind == 0 {
                    opcode::Readv::new(fd, ptr, n).offset(off).build()
                } else {
                    opcode::Writev::new(fd, ptr, n).offset(off).build()
                };
                let e = e.user_data(slot as u64);
                let ring = qs.ring.as_mut().unwrap();
                unsafe {
                    while ring.submission().push(&e).is_err() {
                        ring.submit().unwrap();
                    }
                }
                qs.inflight += 1;
                queued += 1;
                continue;
            }
            let s = self.simple(&r);
            unsafe { *r.status = s };
            let len = if r.kind == 0 { r.data_len + 1 } else { 1 };
            st.get_queue_mut().add_used(&*guard, head, len).unwrap();
            used = true;
            done += 1;
            if self.early > 0 && (done == 1 || done % self.early == 0) {
                used = false;
                if !self.event_idx.load(Ordering::Relaxed) || st.needs_notification().unwrap() {
                    st.signal_used_queue().unwrap();
                }
            }
        }
        if queued > 0 {
            qs.ring.as_mut().unwrap().submit().unwrap();
            used |= self.harvest(&guard, &mut st, &mut qs);
        }
        if used && (!self.event_idx.load(Ordering::Relaxed) || st.needs_notification().unwrap()) {
            st.signal_used_queue().unwrap();
        }
        any || used
    }

    fn harvest(&self, mem: &GM, st: &mut vhost_user_backend::VringState, qs: &mut QState) -> bool {
        let mut used = false;
        let QState {
            ring,
            slots,
            free,
            inflight,
            ..
        } = qs;
        let ring = ring.as_mut().unwrap();
        for c in ring.completion() {
            let s = c.user_data() as usize;
            let p = &mut slots[s];
            let ok = c.result() == p.len as i32;
            unsafe { *p.status = if ok { 0 } else { 1 } };
            p.busy = false;
            st.get_queue_mut().add_used(mem, p.head, p.len + 1).unwrap();
            free.push(s as u32);
            *inflight -= 1;
            used = true;
        }
        used
    }
}

impl VhostUserBackend for Blk {
    type Bitmap = ();
    type Vring = VringRwLock;
    fn num_queues(&self) -> usize {
        self.nq
    }
    fn max_queue_size(&self) -> usize {
        self.qsize
    }
    fn features(&self) -> u64 {
        1 << 32
            | 1 << 29
            | 1 << 28
            | 1 << 2
            | 1 << 6
            | 1 << 9
            | if self.nq > 1 { 1 << 12 } else { 0 }
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }
    fn acked_features(&self, f: u64) {
        eprintln!("acked features {f:#x}");
    }
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }
    fn set_event_idx(&self, e: bool) {
        self.event_idx.store(e, Ordering::Relaxed)
    }
    fn get_config(&self, off: u32, size: u32) -> Vec<u8> {
        let mut c = vec![0u8; 60.max((off + size) as usize)];
        c[0..8].copy_from_slice(&(self.capacity / 512).to_le_bytes());
        c[12..16].copy_from_slice(&126u32.to_le_bytes()); // seg_max
        c[20..24].copy_from_slice(&512u32.to_le_bytes()); // blk_size
        c[34..36].copy_from_slice(&(self.nq as u16).to_le_bytes());
        c[off as usize..(off + size) as usize].to_vec()
    }
    fn update_memory(&self, _mem: GuestMemoryAtomic<GM>) -> Result<()> {
        Ok(())
    }
    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.nq).map(|i| 1u64 << i).collect()
    }
    fn exit_event(&self, _t: usize) -> Option<EventFd> {
        EventFd::new(libc::EFD_NONBLOCK).ok()
    }
    fn handle_event(&self, ev: u16, _set: EventSet, vrings: &[VringRwLock], thread: usize) -> Result<()> {
        // ev 0 = this thread's queue (the crate renumbers), > nq = completion eventfd of the io_uring
        let vring = &vrings[0];
        if ev as usize > self.nq {
            let q = self.q[thread].lock().unwrap();
            let _ = q.evt.as_ref().unwrap().read();
        }
        loop {
            if self.event_idx.load(Ordering::Relaxed) {
                vring.disable_notification().unwrap();
            }
            let mut t: Option<Instant> = None;
            loop {
                if self.process(vring, thread) {
                    t = None;
                    continue;
                }
                if self.poll.is_zero() {
                    break;
                }
                match t {
                    None => t = Some(Instant::now()),
                    Some(t0) => {
                        if t0.elapsed() > self.poll {
                            break;
                        }
                    }
                }
                std::hint::spin_loop();
            }
            if !self.event_idx.load(Ordering::Relaxed) || !vring.enable_notification().unwrap() {
                break;
            }
        }
        Ok(())
    }
}

fn main() {
    let (mut sock, mut path, mut size, mut engine, mut nq, mut poll, mut direct, mut qsize, mut early) = (
        String::new(),
        None,
        1u64 << 30,
        Engine::Null,
        1usize,
        0u64,
        false,
        1024usize,
        0usize,
    );
    let mut a = std::env::args().skip(1);
    while let Some(k) = a.next() {
        let mut v = || a.next().expect("value");
        match k.as_str() {
            "--socket" => sock = v(),
            "--file" => path = Some(v()),
            "--size" => size = v().parse().unwrap(),
            "--queues" => nq = v().parse().unwrap(),
            "--queue-size" => qsize = v().parse().unwrap(),
            "--poll-us" => poll = v().parse().unwrap(),
            "--direct" => direct = true,
            "--early" => early = v().parse().unwrap(),
            "--engine" => {
                engine = match v().as_str() {
                    "null" => Engine::Null,
                    "sync" => Engine::Sync,
                    "uring" => Engine::Uring,
                    e => panic!("engine {e}"),
                }
            }
            o => panic!("option {o}"),
        }
    }
    let file = path.map(|p| {
        let mut o = OpenOptions::new();
        o.read(true).write(true);
        if direct {
            o.custom_flags(libc::O_DIRECT);
        }
        let f = o.open(p).expect("open");
        size = f.metadata().unwrap().len();
        f
    });
    let _ = std::fs::remove_file(&sock);
    let mut listener = Listener::new(&sock, true).unwrap();
    loop {
        let mem = GuestMemoryAtomic::new(GM::new());
        let q = (0..nq)
            .map(|_| {
                let (mut ring, mut evt) = (None, None);
                if engine == Engine::Uring {
                    let r = IoUring::builder()
                        .setup_cqsize(2 * qsize as u32)
                        .build(qsize as u32)
                        .unwrap();
                    r.submitter()
                        .register_files(&[file.as_ref().unwrap().as_raw_fd()])
                        .unwrap();
                    let e = EventFd::new(libc::EFD_NONBLOCK).unwrap();
                    r.submitter().register_eventfd(e.as_raw_fd()).unwrap();
                    ring = Some(r);
                    evt = Some(e);
                }
                Mutex::new(QState {
                    ring,
                    evt,
                    slots: (0..qsize)
                        .map(|_| Pending {
                            head: 0,
                            status: std::ptr::null_mut(),
                            iov: vec![],
                            len: 0,
                            busy: false,
                        })
                        .collect(),
                    free: (0..qsize as u32).collect(),
                    inflight: 0,
                })
            })
            .collect();
        let b = Arc::new(Blk {
            mem: mem.clone(),
            file: file.as_ref().map(|f| f.try_clone().unwrap()),
            capacity: size,
            engine,
            nq,
            qsize,
            poll: Duration::from_micros(poll),
            early,
            event_idx: AtomicBool::new(false),
            q,
        });
        let mut d = VhostUserDaemon::new("rust-blk".into(), b.clone(), mem).unwrap();
        if engine == Engine::Uring {
            for (i, h) in d.get_epoll_handlers().iter().enumerate() {
                h.register_listener(
                    b.q[i].lock().unwrap().evt.as_ref().unwrap().as_raw_fd(),
                    EventSet::IN,
                    nq as u64 + 1,
                )
                .unwrap();
            }
        }
        d.start(listener).unwrap();
        if let Err(e) = d.wait() {
            eprintln!("connection ended: {e}");
        }
        drop(d);
        listener = Listener::new(&sock, true).unwrap();
    }
}
