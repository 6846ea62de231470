// Stands in for NVIDIA's libnvidia-ml.so.1: answers from the stand-in machine, as far as Nibble asks.
#include "machine.h"
#include <stdio.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
static const unsigned long long NOT_AVAILABLE = ~0ull;

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } ProcessInfo;

// A card's handle is its address; that of its slice (MIG), of which it has one at most, is one byte further.
static int is_slice(void* handle) { return ((char*)handle - (char*)the_machine()->card) % sizeof(Card) == 1; }
static Card* card_of(void* handle) { return (Card*)((char*)handle - is_slice(handle)); }
static int64_t index_of(void* handle) { return card_of(handle) - the_machine()->card; }

int nvmlInit_v2(void) { return the_machine()->cards ? SUCCESS : DRIVER_NOT_LOADED; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }

const char* nvmlErrorString(int error) {
  switch (error) {
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
  }
  return "Unknown Error";
}

int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  snprintf(text, size, "%s", the_machine()->driver);
  return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned* count) { *count = (unsigned)the_machine()->cards; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** handle) {
  if (index >= the_machine()->cards) return INVALID_ARGUMENT;
  *handle = &the_machine()->card[index];
  return SUCCESS;
}

int nvmlDeviceGetName(void* handle, char* text, unsigned size) {
  snprintf(text, size, "%s", card_of(handle)->name);
  return SUCCESS;
}

int nvmlDeviceGetUUID(void* handle, char* text, unsigned size) {
  const char* kind = is_slice(handle) ? "MIG" : "GPU";
  snprintf(text, size, "%s-%08x-0000-0000-0000-000000000000", kind, (unsigned)index_of(handle));
  return SUCCESS;
}

int nvmlDeviceGetMigMode(void* handle, unsigned* now, unsigned* later) {
  *now = *later = card_of(handle)->slice_bytes > 0;
  return *now ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(void* handle, unsigned* count) { (void)handle; *count = 7; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(void* handle, unsigned place, void** slice) {
  *slice = (char*)handle + 1;
  return place == 2 ? SUCCESS : NOT_FOUND;  // the other places are empty
}

int nvmlDeviceGetGpuInstanceId(void* handle, unsigned* id) { *id = 9; return is_slice(handle) ? SUCCESS : INVALID_ARGUMENT; }
int nvmlDeviceGetComputeInstanceId(void* handle, unsigned* id) { *id = 0; return is_slice(handle) ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceGetCudaComputeCapability(void* handle, int* major, int* minor) {
  *major = (int)card_of(handle)->major;
  *minor = (int)card_of(handle)->minor;
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void* handle, Memory* memory) {
  if (the_machine()->is_unified) return NOT_SUPPORTED;
  Card* card = card_of(handle);
  int slice = is_slice(handle);
  memory->total = (unsigned long long)(slice ? card->slice_bytes : card->bytes);
  memory->used = (unsigned long long)((slice ? 0 : card->driver_bytes) + used_by_others(index_of(handle), 0));
  memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void* handle, MemoryV2* memory) {
  Memory plain;
  int failed = nvmlDeviceGetMemoryInfo(handle, &plain);
  if (failed) return failed;
  memory->total = plain.total, memory->free = plain.free, memory->used = plain.used, memory->reserved = 0;
  return SUCCESS;
}

int nvmlDeviceGetTemperature(void* handle, int sensor, unsigned* celsius) {
  (void)sensor;
  *celsius = 61;
  return the_machine()->has_sensors && !is_slice(handle) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperatureV(void* handle, void* reading) { (void)handle, (void)reading; return NOT_SUPPORTED; }

int nvmlDeviceGetPowerUsage(void* handle, unsigned* milliwatts) {
  *milliwatts = 214500;
  return the_machine()->has_sensors && !is_slice(handle) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void* handle, unsigned* count, ProcessInfo* infos) {
  Machine* machine = the_machine();
  unsigned room = *count, found = 0;
  for (int i = 0; i < MOST_PROCESSES && machine->naming != NOBODY_NAMED; i++) {
    Process* each = &machine->process[i];
    if (!each->pid || !each->bytes || each->card != index_of(handle) || !is_alive(each->pid)) continue;
    if (found < room) {
      unsigned long long used = machine->naming == USE_UNKNOWN ? NOT_AVAILABLE : (unsigned long long)each->bytes;
      infos[found] = (ProcessInfo){(unsigned)each->pid, used, ~0u, ~0u};
    }
    found++;
  }
  *count = found;
  return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void* handle, unsigned* count, ProcessInfo* infos) {
  (void)handle, (void)infos;
  *count = 0;
  return SUCCESS;
}
