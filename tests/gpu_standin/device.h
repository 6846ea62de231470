// The device type "cuda" for torch: which card is current, its streams and events, its random numbers.
#pragma once
#include "streams.h"
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device;
using c10::DeviceIndex;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::Stream;

inline thread_local DeviceIndex current_index = 0;
inline DeviceIndex set_index(DeviceIndex index) {
  DeviceIndex before = current_index;
  if (index >= 0) current_index = index;
  return before;
}

// The card draws its random numbers apart from the CPU, by the CPU's generator.
struct CardGenerator final : c10::GeneratorImpl {
  at::Generator drawn_by = at::detail::createCPUGenerator();
  CardGenerator() : c10::GeneratorImpl{Device(CUDA, 0), DispatchKeySet(DispatchKey::CUDA)} {}
  void set_current_seed(uint64_t seed) override { drawn_by.set_current_seed(seed); }
  uint64_t current_seed() const override { return drawn_by.current_seed(); }
  uint64_t seed() override { return drawn_by.seed(); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl& state) override { drawn_by.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return drawn_by.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new CardGenerator();
    copy->drawn_by = drawn_by.clone();
    return copy;
  }
};
inline at::Generator& default_generator() { static at::Generator one = at::make_generator<CardGenerator>(); return one; }
inline at::Generator& drawn_by(const at::Generator& of) { return ((CardGenerator*)of.unsafeGetGeneratorImpl())->drawn_by; }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static Stream stream(Device device, StreamId id) {
    return Stream(Stream::UNSAFE, Device(CUDA, device.index() < 0 ? current_index : device.index()), id);
  }
  c10::DeviceType type() const override { return CUDA; }
  DeviceIndex deviceCount() const noexcept override { return (DeviceIndex)visible_cards().size(); }
  Device exchangeDevice(Device device) const override { return {CUDA, set_index(device.index())}; }
  Device getDevice() const override { return {CUDA, current_index}; }
  void setDevice(Device device) const override { set_index(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override { set_index(device.index()); }
  Stream getStream(Device device) const noexcept override { return stream(device, current_stream); }
  Stream getDefaultStream(Device device) const override { return stream(device, 0); }
  Stream getNewStream(Device device, int) const override { return stream(device, new_stream()); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return getNewStream(device, 0); }
  Stream exchangeStream(Stream to) const noexcept override {
    StreamId before = current_stream;
    current_stream = to.id();
    return stream(to.device(), before);
  }
  void record(void** event, const Stream& on, const DeviceIndex, const c10::EventFlag) const override {
    delete (Recorded*)*event;
    *event = record_event(on.id());
  }
  void block(void* event, const Stream& who) const override { if (event) wait_for(who.id(), *(Recorded*)event); }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override { delete (Recorded*)event; }
  void synchronizeEvent(void* event) const override { if (event) host_waits_for(*(Recorded*)event); }
  void synchronizeStream(const Stream& stream) const override { host_waits_for_stream(stream.id()); }
  void synchronizeDevice(const DeviceIndex) const override { host_waits_for_all(); }
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

namespace at {
struct CUDAHooks final : CUDAHooksInterface {  // torch looks it up by this name
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return !visible_cards().empty(); }
  bool hasPrimaryContext(DeviceIndex index) const override { return index == 0; }
  const Generator& getDefaultGenerator(DeviceIndex) const override { return default_generator(); }
  Generator getNewGenerator(DeviceIndex) const override { return make_generator<CardGenerator>(); }
  Device getDeviceFromPtr(void*) const override { return Device(c10::DeviceType::CUDA, 0); }
  bool isPinnedPtr(const void* address) const override { return PinnedAllocator::holds(address); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator(); }
  Allocator* getCUDADeviceAllocator() const override { return &card_allocator(); }
  int getNumGPUs() const override { return (int)visible_cards().size(); }
  DeviceIndex deviceCount() const override { return (DeviceIndex)visible_cards().size(); }
  DeviceIndex current_device() const override { return current_index; }
  DeviceIndex getCurrentDevice() const override { return current_index; }
  void setCurrentDevice(DeviceIndex index) const override { set_index(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return set_index(index); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return set_index(index); }
  void deviceSynchronize(DeviceIndex) const override { host_waits_for_all(); }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at
