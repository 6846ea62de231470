// What cards the stand-in machine has and who uses them: one file, mapped by every process of a test.
// machine.py writes it and holds the same structures; nvml.c and the stand-in device read it.
#pragma once
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_CARDS = 8, MOST_PROCESSES = 64 };

// What the driver tells about single processes.
enum { NAMED = 0, USE_UNKNOWN = 1 /* Windows, WSL */, NOBODY_NAMED = 2 /* a container */ };

typedef struct {
  char name[96];
  int64_t major, minor;  // compute capability
  int64_t bytes;         // of memory
  int64_t driver_bytes;  // of it in use by the driver itself
  int64_t slice_bytes;   // of a MIG slice, 0 where the card is whole
} Card;

typedef struct {
  int64_t pid, card;
  int64_t bytes;    // the CUDA context and what torch has reserved
  int64_t managed;  // managed memory: counted to the card and to no process
} Process;

typedef struct {
  char driver[32];
  int64_t cards;
  int64_t context_bytes;   // what CUDA takes for a process that uses a card
  int64_t pin_limit;       // bytes of ordinary memory that can be pinned, -1: no limit
  int64_t naming;          // NAMED, USE_UNKNOWN or NOBODY_NAMED
  int64_t has_sensors;     // temperature and power
  int64_t is_unified;      // the card has no memory of its own (GB10)
  int64_t managed_memory;  // whether cudaMallocManaged works
  int64_t defers;          // copies on side streams are made when somebody waits for them
  int64_t poisons;         // fresh memory holds NaN
  Card card[MOST_CARDS];
  Process process[MOST_PROCESSES];
} Machine;

// The machine that GPU_STANDIN_MACHINE names; one without cards where it names none.
static inline Machine* the_machine(void) {
  static Machine* mapped;
  if (mapped) return mapped;
  const char* path = getenv("GPU_STANDIN_MACHINE");
  int file = path ? open(path, O_RDWR) : -1;
  void* bytes = file < 0 ? MAP_FAILED : mmap(0, sizeof(Machine), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  return mapped = (Machine*)(bytes == MAP_FAILED ? calloc(1, sizeof(Machine)) : bytes);
}

static inline int is_alive(int64_t pid) {
  char path[32] = "/proc/", digits[24];
  int n = 0;
  for (; pid > 0; pid /= 10) digits[n++] = (char)('0' + pid % 10);
  for (char* to = path + 6; n > 0;) *to++ = digits[--n], *to = 0;
  return access(path, F_OK) == 0;
}

// Bytes that other processes than `me` use on `card`.
static inline int64_t used_by_others(int64_t card, int64_t me) {
  int64_t sum = 0;
  for (int i = 0; i < MOST_PROCESSES; i++) {
    Process* each = &the_machine()->process[i];
    if (each->pid && each->pid != me && each->card == card && is_alive(each->pid)) sum += each->bytes + each->managed;
  }
  return sum;
}
