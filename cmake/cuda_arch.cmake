# THE table of CUDA architectures: what nvcc makes -> why. Sources named *_sm90.cu are built for the sm_90a row alone.
set(TW_CUDA_ARCHS
  "arch=compute_80,code=sm_80"         # the baseline: mma.sync, cp.async, bfloat16
  "arch=compute_90a,code=sm_90a"       # Hopper: wgmma, TMA, clusters
  "arch=compute_90,code=compute_90")   # PTX, which the driver compiles for whatever comes after
if(TILEWRIGHT_CUDA_ARCHS)  # such as sm_90a: only that row, for development
  list(FILTER TW_CUDA_ARCHS INCLUDE REGEX "code=${TILEWRIGHT_CUDA_ARCHS}$")
endif()
