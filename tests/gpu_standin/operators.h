// Every operator of torch on the card: the CPU's kernel over the same bytes, after the check that CUDA makes.
#pragma once
#include "device.h"
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <set>
#include <thread>

using at::Tensor;
using c10::IValue;

inline void use_storage(const Tensor& tensor, bool writes, const std::string& name) {
  use(tensor.storage().data(), tensor.storage().nbytes(), writes, name);
}

inline Tensor on_storage(c10::Storage storage, const Tensor& like, c10::DeviceType device) {
  DispatchKeySet keys(device == CPU ? DispatchKey::CPU : DispatchKey::CUDA);
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.is_conj()) made._set_conj(true);
  if (like.is_neg()) made._set_neg(true);
  return made;
}

// The same bytes under another device. `counts`: they are new on the card, and take their place there.
inline Tensor same_bytes(const Tensor& tensor, c10::DeviceType device, bool counts = false) {
  struct Held { c10::Storage storage; int64_t counted; StreamId stream; };
  auto bytes = (int64_t)tensor.storage().nbytes();
  if (counts && bytes) take(bytes);
  auto* held = new Held{tensor.storage(), counts ? bytes : 0, current_stream};
  auto release = [](void* context) {
    auto* held = (Held*)context;
    if (held->counted) forget_uses(held->storage.data(), held->stream), give_back(held->counted);
    delete held;
  };
  void* address = const_cast<void*>(tensor.storage().data());
  c10::DataPtr data(address, held, release, device == CPU ? Device(CPU) : Device(CUDA, 0));
  c10::Allocator* allocator = device == CPU ? c10::GetAllocator(CPU) : &card_allocator();
  c10::Storage storage(c10::Storage::use_byte_size_t(), (size_t)bytes, std::move(data), allocator, true);
  return on_storage(std::move(storage), tensor, device);
}

// Operators for which CUDA accepts indices that lie on the CPU.
inline bool takes_indices(const std::string& name) {
  static const std::set<std::string> names{"aten::index", "aten::index_put", "aten::index_put_",
                                           "aten::_index_put_impl_", "aten::_unsafe_index"};
  return names.count(name) > 0;
}

// One call of an operator: its arguments are made the CPU's, and what it returns the card's.
struct Call {
  const c10::FunctionSchema& schema;
  torch::jit::Stack& stack;
  std::vector<std::pair<Tensor, Tensor>> seen;  // of the card, and as the CPU's kernel sees it
  bool for_card = false, of_cpu = false, draws = false;

  Call(const c10::OperatorHandle& op, torch::jit::Stack* on) : schema(op.schema()), stack(*on) {
    draws = op.hasTag(at::Tag::nondeterministic_seeded);
    const auto& arguments = schema.arguments();
    for (size_t i = 0; i < arguments.size(); i++) {
      const auto* alias = arguments[i].alias_info();
      pass(stack[stack.size() - arguments.size() + i], arguments[i], alias && alias->isWrite());
    }
    TORCH_CHECK(!(of_cpu && !seen.empty()), "Expected all tensors to be on the same device, but found at least two devices, "
                "cuda:0 and cpu! (when calling ", schema.name(), ")");
    for_card = for_card || !seen.empty();
  }

  Tensor as_cpu(const Tensor& tensor, bool writes) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {  // a number may lie anywhere
      of_cpu = of_cpu || (tensor.is_cpu() && tensor.dim() > 0 && !takes_indices(schema.name()));
      return tensor;
    }
    use_storage(tensor, writes, schema.name());
    for (auto& [card, cpu] : seen)
      if (card.is_same(tensor)) return cpu;
    seen.emplace_back(tensor, same_bytes(tensor, CPU));
    return seen.back().second;
  }

  void pass(IValue& value, const c10::Argument& argument, bool writes) {
    if (value.isTensor()) {
      value = as_cpu(value.toTensor(), writes);
    } else if (value.isTensorList()) {
      auto all = value.toTensorVector();
      for (Tensor& each : all) each = as_cpu(each, writes);
      value = c10::List<Tensor>(all);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> all;
      for (std::optional<Tensor> each : value.toOptionalTensorVector())
        all.push_back(each ? std::optional<Tensor>(as_cpu(*each, writes)) : each);
      value = all;
    } else if (value.isList() && argument.type()->str() == "Tensor[][]") {  // of a collective
      c10::impl::GenericList all(c10::ListType::ofTensors());
      for (const IValue& each : value.toListRef()) {
        auto tensors = each.toTensorVector();
        for (Tensor& tensor : tensors) tensor = as_cpu(tensor, writes);
        all.push_back(c10::List<Tensor>(tensors));
      }
      value = all;
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      TORCH_CHECK(value.toDevice().index() <= 0, "the stand-in keeps tensors on one card only");
      value = Device(CPU);
      for_card = true;
    } else if (value.isGenerator()) {
      auto generator = value.toGenerator();
      TORCH_CHECK(generator.device().is_cuda(), "Expected a 'cuda' device type for generator but found 'cpu'");
      value = drawn_by(generator);
      draws = false;
    } else if (value.isNone() && argument.type()->str().find("Generator") != std::string::npos) {
      value = drawn_by(default_generator());
      draws = false;
    }
  }

  void run(const c10::OperatorHandle& op) {
    auto kernel = [&] { op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), &stack); };
    if (!draws) return kernel();
    // it draws from the CPU's default generator, which takes the place of the card's meanwhile
    auto cpu = at::detail::getDefaultCPUGenerator();
    auto kept = cpu.get_state();
    cpu.set_state(drawn_by(default_generator()).get_state());
    kernel();
    drawn_by(default_generator()).set_state(cpu.get_state());
    cpu.set_state(kept);
  }

  // An argument that was resized, or given another storage, is so on the card too.
  void follow_arguments() {
    for (auto& [card, cpu] : seen) {
      bool moved = cpu.storage().data() != card.storage().data();
      if (moved) {
        size_t bytes = cpu.storage().nbytes();
        auto data = card_allocator().allocate(bytes);
        if (bytes) memcpy(data.mutable_get(), cpu.storage().data(), bytes);
        card.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
        card.storage().unsafeGetStorageImpl()->set_nbytes(bytes);
      }
      if (moved || cpu.sizes() != card.sizes() || cpu.strides() != card.strides())
        card.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
    }
  }

  Tensor as_card(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cpu() || !for_card) return tensor;
    for (auto& [card, cpu] : seen)
      if (cpu.storage().unsafeGetStorageImpl() == tensor.storage().unsafeGetStorageImpl())
        return cpu.is_same(tensor) ? card : on_storage(card.storage(), tensor, CUDA);
    seen.emplace_back(same_bytes(tensor, CUDA, true), tensor);  // what else is returned may be a view of it
    return seen.back().first;
  }

  void give_results() {
    for (size_t i = 0; i < schema.returns().size(); i++) {
      IValue& value = stack[stack.size() - schema.returns().size() + i];
      if (value.isTensor()) {
        value = as_card(value.toTensor());
      } else if (value.isTensorList()) {
        auto all = value.toTensorVector();
        for (Tensor& each : all) each = as_card(each);
        value = c10::List<Tensor>(all);
      }
    }
  }
};

struct Workspaces {
  std::mutex lock;
  std::map<std::thread::id, std::map<StreamId, c10::DataPtr>> of;
};
inline Workspaces& workspaces() { static Workspaces& all = *new Workspaces; return all; }

// cuBLAS has a workspace for each thread and stream that multiplies, out of torch's pool (2.13, CUDABlas.cpp,
// parseChosenWorkspaceSize: 2 x 4 MiB and 8 x 16 KiB, from compute capability 9 on 32 MiB).
inline void have_workspace(const std::string& name) {
  static const std::set<std::string> products{"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv"};
  if (!products.count(name)) return;
  std::lock_guard<std::mutex> guard(workspaces().lock);
  auto& mine = workspaces().of[std::this_thread::get_id()];
  if (mine.count(current_stream)) return;
  bool large = the_machine()->card[my_card()].major >= 9;
  mine.emplace(current_stream, card_allocator().allocate(large ? 32 << 20 : 8 * (1 << 20) + 8 * (16 << 10)));
}

inline void run_on_cpu(const c10::OperatorHandle& op, DispatchKeySet, torch::jit::Stack* stack) {
  Call call(op, stack);
  if (call.for_card) have_workspace(op.schema().name());
  call.run(op);
  call.follow_arguments();
  call.give_results();
  if (op.schema().name() == "aten::_local_scalar_dense") host_waits_for_stream(current_stream);
}
TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

// ---- what allocates, copies and changes storages, which the fallback cannot do

inline Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                    std::optional<Device>, std::optional<bool> pin, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pin.value_or(false), "Only dense CPU tensors can be pinned");
  DispatchKeySet keys(DispatchKey::CUDA);
  return at::detail::empty_generic(size, &card_allocator(), keys, c10::dtype_or_default(dtype), format);
}

inline Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                            std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  DispatchKeySet keys(DispatchKey::CUDA);
  return at::detail::empty_strided_generic(size, stride, &card_allocator(), keys, c10::dtype_or_default(dtype));
}

inline Tensor& copy(Tensor& to, const Tensor& from, bool non_blocking) {
  if (from.is_meta()) return to;
  if (from.is_cuda()) use_storage(from, false, "copy_");
  if (to.is_cuda()) use_storage(to, true, "copy_");
  Tensor target = to.is_cuda() ? same_bytes(to, CPU) : to.detach(), source = from.is_cuda() ? same_bytes(from, CPU) : from.detach();
  bool within_card = to.is_cuda() && from.is_cuda();
  const Tensor& host = to.is_cuda() ? from : to;
  bool returns_at_once = within_card || (non_blocking && PinnedAllocator::holds(host.storage().data()));
  if (the_machine()->defers && current_stream != 0 && returns_at_once) {
    if (to.numel() && to.is_non_overlapping_and_dense())
      memset(target.data_ptr(), 0xff, (size_t)target.numel() * target.itemsize());  // nothing useful is there until then
    std::lock_guard<std::recursive_mutex> guard(streams().lock);
    streams().put_off[current_stream].push_back([target, source]() mutable { target.copy_(source); });
    streams().copies_put_off++;
    return to;
  }
  make_copies(current_stream);
  target.copy_(source);
  if (!returns_at_once) host_waits_for_stream(current_stream);
  return to;
}

inline void resize_storage(c10::StorageImpl* storage, size_t bytes) {
  auto data = card_allocator().allocate(bytes);
  size_t kept = std::min(bytes, storage->nbytes());
  if (kept) memcpy(data.mutable_get(), storage->data(), kept);
  storage->set_data_ptr_noswap(std::move(data));
  storage->set_nbytes(bytes);
}

inline const Tensor& resize(const Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  auto* storage = self.storage().unsafeGetStorageImpl();
  size_t needed = (size_t)(self.storage_offset() + self.numel()) * self.itemsize();
  if (needed > storage->nbytes()) resize_storage(storage, needed);
  return self;
}

inline Tensor& set_storage(Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                           c10::SymIntArrayRef stride) {
  TORCH_CHECK(source.device().is_cuda(), "Attempted to set the storage of a tensor on device \"cuda:0\" to a storage on "
              "different device \"", source.device(), "\".");
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  std::vector<int64_t> strides = C10_AS_INTARRAYREF_SLOW(stride).vec();
  if (strides.empty()) {
    strides.assign(sizes.size(), 1);
    for (int64_t i = (int64_t)sizes.size() - 2; i >= 0; i--) strides[i] = strides[i + 1] * sizes[i + 1];
  }
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset.guard_int(__FILE__, __LINE__));
  return self;
}

inline Tensor& set_to_storage(Tensor& self, c10::Storage source) {
  c10::SymInt elements = (int64_t)(source.nbytes() / self.itemsize());
  return set_storage(self, std::move(source), 0, {elements}, {});
}

inline Tensor& set_to_tensor(Tensor& self, const Tensor& source) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source.storage());
  self.unsafeGetTensorImpl()->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}

// CUDA's softmax can take halves and answer in floats; the CPU's cannot.
template <bool of_log>
Tensor softmax(const Tensor& tensor, int64_t dim, bool to_float) {
  use_storage(tensor, false, "_softmax");
  Tensor seen = same_bytes(tensor, CPU);
  if (to_float) seen = seen.to(at::kFloat);
  return same_bytes(of_log ? at::_log_softmax(seen, dim, false) : at::_softmax(seen, dim, false), CUDA, true);
}

template <bool of_log>
Tensor softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim, at::ScalarType dtype) {
  Tensor g = same_bytes(grad, CPU), y = same_bytes(output, CPU);
  Tensor found = of_log ? at::_log_softmax_backward_data(g, y, dim, g.scalar_type())
                        : at::_softmax_backward_data(g, y, dim, g.scalar_type());
  return same_bytes(found.to(dtype), CUDA, true);
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", set_to_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", set_to_tensor);
  m.impl("_softmax", softmax<false>);
  m.impl("_log_softmax", softmax<true>);
  m.impl("_softmax_backward_data", softmax_backward<false>);
  m.impl("_log_softmax_backward_data", softmax_backward<true>);
}

// What several processes do together goes over gloo, which sees the CPU's tensors; torch_cuda.py asks for it instead of NCCL.
inline const char* const COLLECTIVES[] = {"allreduce_", "allreduce_coalesced_", "broadcast_", "reduce_", "allgather_",
    "_allgather_base_", "allgather_into_tensor_coalesced_", "_reduce_scatter_base_", "reduce_scatter_",
    "reduce_scatter_tensor_coalesced_", "gather_", "scatter_", "alltoall_", "alltoall_base_", "barrier", "send", "recv_"};
TORCH_LIBRARY_IMPL(c10d, CUDA, m) {
  for (const char* name : COLLECTIVES) m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}
