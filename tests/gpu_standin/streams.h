// Order between streams, as CUDA leaves it: what one stream does is done for another only once that one has waited.
// Kernels run at once, in the program's order. Two things show a wait that is left out: copies on side streams are put
// off until somebody waits for them, and every use of memory is compared with what its stream has waited for.
#pragma once
#include "memory.h"
#include <ATen/ATen.h>
#include <functional>

using StreamId = int64_t;
using Clock = std::map<StreamId, int64_t>;  // for each stream, how much of its work is done

inline thread_local StreamId current_stream = 0;

struct Streams {
  std::recursive_mutex lock;
  std::atomic<StreamId> made{0};  // side streams; stream 0 is the default one
  std::map<StreamId, Clock> known;  // for each stream, what is done before its next piece of work begins
  struct Uses {
    StreamId writer = 0;
    int64_t written = 0;
    Clock read;
    bool waits_before_reuse = false;
    size_t bytes = 1;
  };
  std::map<uintptr_t, Uses> uses;  // by the address of the storage
  std::map<StreamId, std::vector<std::function<void()>>> put_off;
  int64_t copies_put_off = 0, freed_in_use = 0;

  void learn(StreamId who, const Clock& what) {
    for (auto& [stream, when] : what) known[who][stream] = std::max(known[who][stream], when);
  }
};
inline Streams& streams() { static Streams one; return one; }

inline StreamId new_stream() { return ++streams().made; }

// Make the copies that `stream` was asked for.
inline void make_copies(StreamId stream) {
  std::vector<std::function<void()>> due;
  {
    std::lock_guard<std::recursive_mutex> guard(streams().lock);
    due.swap(streams().put_off[stream]);
  }
  for (auto& copy : due) copy();
}

// An event: how far its stream was, and what that stream knew, when it was recorded.
struct Recorded { StreamId stream = 0; Clock clock; };

inline Recorded* record_event(StreamId stream) {
  std::lock_guard<std::recursive_mutex> guard(streams().lock);
  return new Recorded{stream, streams().known[stream]};
}

inline void wait_for(StreamId who, const Recorded& event) {
  make_copies(event.stream);
  std::lock_guard<std::recursive_mutex> guard(streams().lock);
  streams().learn(who, event.clock);
}

inline void (*host_has_waited)() = nullptr;  // told, if anybody wants to know

// The host waits: what is launched from now on, on any stream, comes after.
inline void host_waits_for(const Recorded& event) {
  make_copies(event.stream);
  {
    std::lock_guard<std::recursive_mutex> guard(streams().lock);
    for (StreamId each = 0; each <= streams().made; each++) streams().learn(each, event.clock);
  }
  if (host_has_waited) host_has_waited();
}

inline void host_waits_for_stream(StreamId stream) {
  std::unique_ptr<Recorded> event(record_event(stream));
  host_waits_for(*event);
}

inline void host_waits_for_all() {
  for (StreamId each = 0; each <= streams().made; each++) host_waits_for_stream(each);
}

inline bool order_is_watched() { return the_machine()->defers && streams().made > 0; }

// The current stream reads or writes the `bytes` of a storage. Raises where another stream's use may not be over.
inline void use(const void* address, size_t bytes, bool writes, const std::string& name) {
  if (!address || !order_is_watched()) return;
  Streams& all = streams();
  std::lock_guard<std::recursive_mutex> guard(all.lock);
  Clock& known = all.known[current_stream];
  Streams::Uses& uses = all.uses[(uintptr_t)address];
  uses.bytes = std::max(uses.bytes, bytes);
  auto complain = [&](const char* did, StreamId other) {
    TORCH_CHECK(false, "race: stream ", current_stream, writes ? " writes (" : " reads (", name, ") what stream ", other,
                did, ", and has not waited for it");
  };
  if (uses.writer != current_stream && uses.written > known[uses.writer]) complain(" writes", uses.writer);
  for (auto& [stream, when] : uses.read)
    if (writes && stream != current_stream && when > known[stream]) complain(" reads", stream);
  int64_t now = ++known[current_stream];
  if (writes) uses.writer = current_stream, uses.written = now, uses.read.clear();
  else uses.read[current_stream] = now;
}

// The same for an address within a storage, which a kernel outside of torch was given.
inline void use_within(const void* address, bool writes, const std::string& name) {
  if (!order_is_watched()) return;
  std::unique_lock<std::recursive_mutex> guard(streams().lock);
  auto& uses = streams().uses;
  auto after = uses.upper_bound((uintptr_t)address);
  if (after == uses.begin()) return;
  auto found = std::prev(after);
  if ((uintptr_t)address - found->first < found->second.bytes) use((void*)found->first, 0, writes, name);
}

// torch's record_stream: the allocator waits for other streams before it gives this memory to somebody else.
inline void wait_before_reuse(const void* address) {
  if (!order_is_watched()) return;
  std::lock_guard<std::recursive_mutex> guard(streams().lock);
  streams().uses[(uintptr_t)address].waits_before_reuse = true;
}

// Memory is freed: whoever asks next on `stream`, on which it was allocated, may get it. Counts what other streams may
// still be using then.
inline void forget_uses(const void* address, StreamId stream) {
  if (!order_is_watched()) return;
  Streams& all = streams();
  std::lock_guard<std::recursive_mutex> guard(all.lock);
  auto found = all.uses.find((uintptr_t)address);
  if (found == all.uses.end()) return;
  const Streams::Uses& uses = found->second;
  Clock& known = all.known[stream];
  bool in_use = uses.writer != stream && uses.written > known[uses.writer];
  for (auto& [reader, when] : uses.read) in_use = in_use || (reader != stream && when > known[reader]);
  if (in_use && !uses.waits_before_reuse) all.freed_in_use++;
  all.uses.erase(found);
}
