/* SPDX-License-Identifier: MIT */
/*
 * Memory full of pointers comes back in a new process: the region is created at the address that it had.
 *
 * A binary search tree lives in a region; its nodes point to each other by plain pointers. A first run of this program
 * builds and saves it; a second one, a new process with another layout of everything else, restores it, searches it and
 * extends it. Without an argument the program starts both runs: itself, with "save" and with "load".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <uffdwp.h>
#include <unistd.h>

#define ADDRESS ((void *)0x200000000000) /* far from where Linux puts what it maps by itself */
#define LENGTH_BYTES ((uint64_t)32 << 20)
#define NODES ((uint64_t)100000)
#define KEY(number) ((number)*0x9e3779b97f4a7c15) /* odd: no key twice */
#define PATH "pointers.raw"

struct node {
	struct node *smaller, *larger;
	uint64_t key;
};

/* What stands at the start of the region. */
struct tree {
	struct node *root;
	uint64_t used;
	struct node nodes[];
};

static int pointers_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM || error == -EEXIST ? 77 : 1; /* 77: not on this machine */
}

/* Where a key stands in the tree, or belongs. */
static struct node **pointers_find(struct tree *tree, uint64_t key)
{
	struct node **place = &tree->root;

	while (*place != NULL && (*place)->key != key)
		place = key < (*place)->key ? &(*place)->smaller : &(*place)->larger;
	return place;
}

static void pointers_insert(struct tree *tree, uint64_t key)
{
	struct node *node = &tree->nodes[tree->used++];

	node->key = key;
	*pointers_find(tree, key) = node;
}

static int pointers_save(struct uffdwp_region *region)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct tree *tree = uffdwp_region_base(region);
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	for (uint64_t number = 0; number < NODES; number++)
		pointers_insert(tree, KEY(number));
	options.path = PATH;
	error = uffdwp_snapshot_begin(region, &options, &snapshot);
	if (error != 0)
		return pointers_failed("uffdwp_snapshot_begin", error);
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0)
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
	else
		printf("process %d saved %llu nodes, the root at %p\n", (int)getpid(), (unsigned long long)tree->used,
		       (void *)tree->root);
	return error != 0;
}

static int pointers_load(struct uffdwp_region *region)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct tree *tree = uffdwp_region_base(region);
	uint64_t found = 0;
	int error;

	options.path = PATH;
	error = uffdwp_restore(region, &options, NULL);
	if (error != 0)
		return pointers_failed("uffdwp_restore", error);
	pointers_insert(tree, KEY(NODES)); /* the tree goes on */
	for (uint64_t number = 0; number <= NODES; number++)
		found += *pointers_find(tree, KEY(number)) == &tree->nodes[number] ? 1 : 0;
	printf("process %d found %llu of %llu nodes, the root at %p\n", (int)getpid(), (unsigned long long)found,
	       (unsigned long long)NODES + 1, (void *)tree->root);
	return found == NODES + 1 ? 0 : 1;
}

static int pointers_process(int (*work)(struct uffdwp_region *region))
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return pointers_failed("uffdwp_open", error);
	options.address = ADDRESS;
	error = uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region);
	if (error != 0) {
		result = pointers_failed("uffdwp_region_create", error);
	} else {
		result = work(region);
		uffdwp_region_close(region);
	}
	return uffdwp_close(runtime) != 0 ? 1 : result;
}

/* Runs this program as a new process, and answers as it does. */
static int pointers_run(const char *work)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execl("/proc/self/exe", "pointers", work, (char *)NULL);
		_exit(1);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	int result;

	if (argc > 1)
		return pointers_process(strcmp(argv[1], "save") == 0 ? pointers_save : pointers_load);
	result = pointers_run("save");
	if (result == 0)
		result = pointers_run("load");
	unlink(PATH);
	return result;
}
