"""Shards a base's layers over several processes: each keeps a part of every layer and gathers the rest to compute.

For a model that no single device holds (torch's fully_shard, known as FSDP2). Only frozen weights are sharded:
adapters are whole in every process, so their gradients, optimizer and files are as usual. Covered: a base in 4 bits,
held in the dtype that it computes in, or in 16. Not covered: the embeddings and the head, which every process holds
whole, and fetching the next layer while this one computes.
"""

import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from core.errors import ModelError
from core.model.moe import experts_of
from core.train.parallel import Ranks


def shard(model: PeftModel, ranks: Ranks, device: torch.device) -> None:
    """Bring `model` to the devices, layer by layer: all processes now compute each pass. Raises ModelError."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError("This model's layers cannot be told apart, so it cannot be sharded. Leave train.sharded off.")
    if next(experts_of(model), None) is not None:
        raise ModelError("A mixture of experts cannot be sharded yet. Leave train.sharded off.")
    mesh = init_device_mesh(device.type, (ranks.count,))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in layers:
        layer.to(device)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    model.to(device)
    base = model.get_base_model()
    base._is_fsdp_managed_module = True  # so `generate` goes on in all processes until each has its answer
    if device.type == "cuda":  # accelerate refuses to train what it believes to be elsewhere
        base.hf_device_map = {"": 0}
