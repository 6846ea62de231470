// A GPU that is not there, for tests: the device type "cuda" over ordinary memory, for a CPU build of torch.
// Read machine.h, memory.h, streams.h, device.h, operators.h and attention.h, in this order. Below: what Python calls.
#include "attention.h"

static struct Install {
  Install() {
    c10::SetAllocator(CUDA, &card_allocator(), 1);
    at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&choose_kernel);
  }
} install;

static Tensor to_cpu(const Tensor& tensor) {
  if (tensor.is_cuda()) use_storage(tensor, false, "a kernel");
  return tensor.is_cuda() ? same_bytes(tensor, CPU) : tensor;
}
static Tensor to_card(const Tensor& tensor) { return tensor.is_cpu() ? same_bytes(tensor, CUDA, true) : tensor; }
static void reuse_waits(const Tensor& tensor) { wait_before_reuse(tensor.storage().data()); }
static void resize_storage_of(const Tensor& tensor, int64_t bytes) {
  resize_storage(tensor.storage().unsafeGetStorageImpl(), (size_t)bytes);
}
static Tensor random_state() { return drawn_by(default_generator()).get_state(); }
static void set_random_state(const Tensor& state) { drawn_by(default_generator()).set_state(state); }

TORCH_LIBRARY(gpu_standin, m) {
  m.def("to_cpu(Tensor tensor) -> Tensor");   // the same bytes, for a kernel that is written in Python
  m.def("to_card(Tensor tensor) -> Tensor");  // what it has made, which now takes memory on the card
  m.def("reuse_waits(Tensor tensor) -> ()", reuse_waits);
  m.def("resize_storage(Tensor tensor, int bytes) -> ()", resize_storage_of);
  m.def("random_state() -> Tensor", random_state);
  m.def("set_random_state(Tensor state) -> ()", set_random_state);
}
TORCH_LIBRARY_IMPL(gpu_standin, CUDA, m) { m.impl("to_cpu", to_cpu), m.impl("to_card", to_card); }
TORCH_LIBRARY_IMPL(gpu_standin, CPU, m) { m.impl("to_cpu", to_cpu), m.impl("to_card", to_card); }

extern "C" {
struct Figures {  // install.py has the same; bytes, or how many
  int64_t allocated, peak, reserved, peak_reserved, total, free, out_of_memory, allocations, pinned, peak_pinned;
  int64_t copies_put_off, freed_in_use, attention[3];
};

void standin_figures(Figures* into) {
  Count& now = count();
  std::lock_guard<std::mutex> guard(now.lock);
  int64_t mine = now.owner ? now.reserved : 0, context = now.owner ? 0 : the_machine()->context_bytes;
  *into = {now.allocated, now.peak, now.reserved, now.peak_reserved, card_bytes(), room() + context - mine,
           now.out_of_memory, now.allocations, now.pinned, now.peak_pinned, streams().copies_put_off, streams().freed_in_use,
           {chosen_kernels[0], chosen_kernels[1], chosen_kernels[2]}};
}
int standin_visible_cards(int64_t* into) {
  for (size_t i = 0; i < visible_cards().size(); i++) into[i] = visible_cards()[i];
  return (int)visible_cards().size();
}
void standin_set_fraction(double fraction) { count().fraction = fraction; }
void standin_reset_peak() {
  std::lock_guard<std::mutex> guard(count().lock);
  count().peak = count().allocated, count().peak_reserved = count().reserved;
}
void standin_clear_workspaces() {
  std::lock_guard<std::mutex> guard(workspaces().lock);
  workspaces().of.clear();
}
void standin_empty_cache() { empty_cache(); }
void* standin_managed_memory(size_t bytes) { return managed_memory(bytes); }
int standin_is_managed(void* address) { return is_managed(address); }
void standin_tell_when_host_waits(void (*whom)()) { host_has_waited = whom; }
void standin_seed(uint64_t seed) { drawn_by(default_generator()).set_current_seed(seed); }

void standin_use(void* address, int writes) { use_within(address, writes, "bitsandbytes"); }

int64_t standin_new_stream() { return new_stream(); }
void standin_set_stream(int64_t stream) { current_stream = stream; }
int64_t standin_current_stream() { return current_stream; }
void* standin_record_event(int64_t stream) { return record_event(stream); }
void standin_forget_event(void* event) { delete (Recorded*)event; }
void standin_stream_waits(int64_t stream, void* event) { wait_for(stream, *(Recorded*)event); }
void standin_host_waits(void* event) { host_waits_for(*(Recorded*)event); }
void standin_synchronize() { host_waits_for_all(); }
}
