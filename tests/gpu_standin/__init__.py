"""A GPU that is not there: the device type "cuda" over ordinary memory, for a CPU build of torch.

Every operator runs the CPU's kernel over the same bytes, after CUDA's own check that all tensors are on the card.
Memory is counted and limited as torch's CUDA allocator does it; copies on side streams are put off until somebody waits
for them; a race between streams is an error. NVML and nvidia-smi answer for any card. It shows wrong places, wrong
dtypes, missing waits and wrong assumptions; it says nothing about speed, and computes with the CPU's rounding.

machine.py    what cards there are, and who uses them: a file that all processes of a test share
*.h, *.cpp    the device for torch; nvml.c: the driver's library
build.py      compiles them, once a machine, and the environment in which a process sees the card
install.py    makes it torch's CUDA when torch is imported, with torch_cuda.py, kernels.py and bitsandbytes_library.py
site/         what makes every Python process below do that

    python -m tests.gpu_standin "NVIDIA GeForce RTX 3060" 8.6 12288 -- python -m core.cli doctor
"""
