// Which kernel CUDA's scaled_dot_product_attention would choose: the rules of torch 2.13
// (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp), without cuDNN. kernels.py has the kernels.
#pragma once
#include "operators.h"
#include <ATen/native/transformers/attention.h>

enum { MATH = 0, FLASH = 1, EFFICIENT = 2 };  // as torch's SDPBackend counts
inline std::atomic<int64_t> chosen_kernels[3];

struct Heads {
  const Tensor &q, &k, &v;
  bool half() const { return q.scalar_type() == at::kHalf; }
  bool bfloat() const { return q.scalar_type() == at::kBFloat16; }
  bool dense() const { return q.stride(-1) == 1 && k.stride(-1) == 1 && v.stride(-1) == 1; }
  bool equally_many() const { return q.size(1) == k.size(1) && q.size(1) == v.size(1); }
  bool need_grad() const { return q.requires_grad() || k.requires_grad() || v.requires_grad(); }
  int64_t size() const { return q.size(-1); }
};

inline int capability() {
  const Card& card = the_machine()->card[my_card()];
  return (int)(card.major * 10 + card.minor);
}

inline bool flash_can(const Heads& heads, bool masked, bool causal, double dropout, bool grouped) {
  int64_t size = heads.size();
  if (masked || capability() < 80 || !(heads.half() || heads.bfloat()) || !heads.dense()) return false;
  if (size > 256 || size != heads.k.size(-1) || size != heads.v.size(-1)) return false;
  if (causal && heads.q.size(-2) != heads.k.size(-2)) return false;
  if (!heads.equally_many() && !(grouped && heads.q.size(1) % heads.k.size(1) == 0)) return false;
  bool little_shared_memory = (capability() >= 86 && capability() <= 89) || capability() >= 120;
  if (heads.need_grad() && little_shared_memory && size > 192) return dropout == 0 && size > 224;
  return true;
}

inline bool efficient_can(const Heads& heads) {
  bool narrow = heads.half() || heads.bfloat();
  if (!(heads.half() || heads.q.scalar_type() == at::kFloat || (heads.bfloat() && capability() >= 80))) return false;
  int64_t align = capability() >= 80 ? 4 : 1;
  if (capability() >= 80 || (capability() >= 70 && heads.half())) align = std::max<int64_t>(align, narrow ? 8 : 4);
  bool aligned = heads.size() % align == 0 && heads.v.size(-1) % align == 0 && heads.size() == heads.k.size(-1);
  return aligned && heads.dense() && heads.equally_many();
}

inline int64_t choose_kernel(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask,
                             double dropout, bool causal, std::optional<double>, bool grouped) {
  Heads heads{q, k, v};
  int64_t kernel = flash_can(heads, mask.has_value(), causal, dropout, grouped) ? FLASH : efficient_can(heads) ? EFFICIENT : MATH;
  chosen_kernels[kernel]++;
  return kernel;
}
