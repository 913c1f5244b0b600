// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What mizarnet uses of libbpf, in cffi's dialect of C: "..." is filled in by the compiler from the real headers.
 * Nothing here may be newer than libbpf 1.1, or the extension does not load on Debian 12. */

typedef uint8_t __u8;
typedef uint32_t __u32;
typedef unsigned long long __u64;
typedef int32_t __s32;

/* Numbers of the kernel's interface that Python names. */
#define BPF_ANY ...
#define BPF_NOEXIST ...
#define BPF_EXIST ...

#define BPF_MAP_TYPE_UNSPEC ...
#define BPF_MAP_TYPE_HASH ...
#define BPF_MAP_TYPE_ARRAY ...
#define BPF_MAP_TYPE_PERCPU_HASH ...
#define BPF_MAP_TYPE_PERCPU_ARRAY ...
#define BPF_MAP_TYPE_LRU_HASH ...
#define BPF_MAP_TYPE_LRU_PERCPU_HASH ...
#define BPF_MAP_TYPE_LPM_TRIE ...
#define BPF_MAP_TYPE_RINGBUF ...
#define BPF_MAP_TYPE_DEVMAP ...
#define BPF_MAP_TYPE_ARRAY_OF_MAPS ...

#define BPF_PROG_TYPE_UNSPEC ...
#define BPF_PROG_TYPE_SCHED_CLS ...
#define BPF_PROG_TYPE_XDP ...

#define BTF_KIND_FUNC ...

#define XDP_FLAGS_SKB_MODE ...
#define XDP_FLAGS_DRV_MODE ...
#define XDP_FLAGS_UPDATE_IF_NOEXIST ...

/* shim.h */
#define MZN_TCX_INGRESS ...
#define MZN_TCX_EGRESS ...

void mzn_install_log(void);
int mzn_tcx_query(int ifindex, __u32 hook, __u32 *program_ids, __u32 *count, __u64 *revision);
int mzn_tcx_attach(int ifindex, __u32 hook, int program, __u64 revision);
int mzn_tcx_replace(int ifindex, __u32 hook, int program, int expected);
int mzn_tcx_detach(int ifindex, __u32 hook, int program);

extern "Python+C" void mzn_log(int level, const char *text);
extern "Python" int mzn_sample(void *ctx, void *data, size_t size);

/* libbpf: objects, maps and programs before loading */
struct bpf_object;
struct bpf_map;
struct bpf_program;
struct btf;

struct bpf_object_open_opts {
	size_t sz;
	const char *object_name;
	...;
};

const char *libbpf_version_string(void);
int libbpf_num_possible_cpus(void);

struct bpf_object *bpf_object__open_file(const char *path, const struct bpf_object_open_opts *opts);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct btf *bpf_object__btf(const struct bpf_object *obj);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);

const char *bpf_program__name(const struct bpf_program *prog);
int bpf_program__fd(const struct bpf_program *prog);
int bpf_program__set_autoload(struct bpf_program *prog, bool autoload);
int bpf_program__set_log_buf(struct bpf_program *prog, char *log_buf, size_t log_size);

const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
bool bpf_map__is_internal(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, __u32 max_entries);
__u32 bpf_map__type(const struct bpf_map *map);
__u32 bpf_map__key_size(const struct bpf_map *map);
__u32 bpf_map__value_size(const struct bpf_map *map);
__u32 bpf_map__max_entries(const struct bpf_map *map);
__u32 bpf_map__map_flags(const struct bpf_map *map);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
const void *bpf_map__initial_value(struct bpf_map *map, size_t *size);
int bpf_map__set_initial_value(struct bpf_map *map, const void *data, size_t size);

/* libbpf: BTF */
const void *btf__raw_data(const struct btf *btf, __u32 *size);
struct btf *btf__load_vmlinux_btf(void);
__s32 btf__find_by_name_kind(const struct btf *btf, const char *type_name, __u32 kind);
void btf__free(struct btf *btf);

/* bpf(2): maps */
struct bpf_map_batch_opts; /* flags are refused by every batch call of a plain map */

struct bpf_map_info {
	__u32 type;
	__u32 id;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
	char name[16];
	__u32 btf_id;
	__u32 btf_key_type_id;
	__u32 btf_value_type_id;
	...;
};

struct bpf_map_create_opts; /* a ring buffer needs none */

int bpf_map_create(unsigned int type, const char *name, __u32 key_size, __u32 value_size, __u32 max_entries,
		   const struct bpf_map_create_opts *opts);
int bpf_map_get_fd_by_id(__u32 id);
int bpf_map_freeze(int fd);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, __u32 *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_map_update_batch(int fd, const void *keys, const void *values, __u32 *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_map_delete_batch(int fd, const void *keys, __u32 *count, const struct bpf_map_batch_opts *opts);

/* bpf(2): programs */
struct bpf_prog_info {
	__u32 type;
	__u32 id;
	__u8 tag[8];
	char name[16];
	__u64 load_time;
	__u32 nr_map_ids;
	__u64 map_ids; /* the address of an array to fill in */
	__u64 run_time_ns;
	__u64 run_cnt;
	__u32 verified_insns;
	...;
};

struct bpf_test_run_opts {
	size_t sz;
	const void *data_in;
	void *data_out;
	__u32 data_size_in;
	__u32 data_size_out;
	const void *ctx_in;
	void *ctx_out;
	__u32 ctx_size_in;
	__u32 ctx_size_out;
	__u32 retval;
	int repeat;
	__u32 duration;
	...;
};

struct bpf_btf_info {
	__u64 btf; /* the address of a buffer to fill in */
	__u32 btf_size;
	...;
};

int bpf_btf_get_fd_by_id(__u32 id);
int bpf_obj_get_info_by_fd(int fd, void *info, __u32 *size);
int bpf_prog_get_fd_by_id(__u32 id);
int bpf_prog_bind_map(int prog_fd, int map_fd, const void *opts);
int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *opts);

/* libbpf: XDP */
struct bpf_xdp_attach_opts {
	size_t sz;
	int old_prog_fd;
	...;
};

struct bpf_xdp_query_opts {
	size_t sz;
	__u32 drv_prog_id;
	__u32 hw_prog_id;
	__u32 skb_prog_id;
	...;
};

int bpf_xdp_attach(int ifindex, int prog_fd, __u32 flags, const struct bpf_xdp_attach_opts *opts);
int bpf_xdp_detach(int ifindex, __u32 flags, const struct bpf_xdp_attach_opts *opts);
int bpf_xdp_query(int ifindex, int flags, struct bpf_xdp_query_opts *opts);

/* libbpf: clsact */
enum bpf_tc_attach_point { BPF_TC_INGRESS, BPF_TC_EGRESS, ... };
#define BPF_TC_F_REPLACE ...

struct bpf_tc_hook {
	size_t sz;
	int ifindex;
	enum bpf_tc_attach_point attach_point;
	...;
};

struct bpf_tc_opts {
	size_t sz;
	int prog_fd;
	__u32 flags;
	__u32 prog_id;
	__u32 handle;
	__u32 priority;
	...;
};

int bpf_tc_hook_create(struct bpf_tc_hook *hook);
int bpf_tc_attach(const struct bpf_tc_hook *hook, struct bpf_tc_opts *opts);
int bpf_tc_detach(const struct bpf_tc_hook *hook, const struct bpf_tc_opts *opts);

/* libbpf: ring buffers */
struct ring_buffer;
typedef int (*ring_buffer_sample_fn)(void *ctx, void *data, size_t size);

struct ring_buffer *ring_buffer__new(int map_fd, ring_buffer_sample_fn callback, void *ctx, const void *opts);
void ring_buffer__free(struct ring_buffer *rb);
int ring_buffer__poll(struct ring_buffer *rb, int timeout_ms);
int ring_buffer__consume(struct ring_buffer *rb);
int ring_buffer__epoll_fd(const struct ring_buffer *rb);
