/* SPDX-License-Identifier: MIT */
/*
 * See picture.h. Files are written beside their name (.tmp) and renamed.
 */
#include "picture.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"

#define PICTURES_MAX 512
#define GNUPLOT_SECONDS 60

static struct {
	const char *folder;
	char names[PICTURES_MAX][96];
	size_t count;
} pictures;

/* ------------------------------------------------------------------------------------------------------ files -- */

static void picture_path(const char *name, const char *ending, char *path, size_t size)
{
	if ((size_t)snprintf(path, size, "%s/%s%s", pictures.folder, name, ending) >= size)
		bench_die("%s: too long a path for a picture", pictures.folder);
}

static FILE *picture_create(const char *name, const char *ending)
{
	char path[PATH_MAX];
	FILE *file;

	picture_path(name, ending, path, sizeof(path));
	file = fopen(path, "we");
	if (!file)
		bench_die("%s: %s", path, strerror(errno));
	return file;
}

static void picture_publish(const char *name, const char *aside, const char *ending)
{
	char from[PATH_MAX];
	char to[PATH_MAX];

	picture_path(name, aside, from, sizeof(from));
	picture_path(name, ending, to, sizeof(to));
	if (rename(from, to))
		bench_die("%s: %s", to, strerror(errno));
}

static void picture_finish(FILE *file, const char *name, const char *aside, const char *ending)
{
	int failed = fflush(file) || ferror(file);
	int error = errno;
	char path[PATH_MAX];

	picture_path(name, aside, path, sizeof(path));
	fclose(file);
	if (failed) {
		unlink(path);
		bench_die("%s: %s", path, strerror(error));
	}
	picture_publish(name, aside, ending);
}

void picture_folder(const char *folder)
{
	pictures.folder = folder;
	if (mkdir(folder, 0777) && errno != EEXIST)
		bench_die("%s: %s", folder, strerror(errno));
	if (access(folder, W_OK))
		bench_die("%s: %s", folder, strerror(errno));
}

void picture_open(struct picture *picture, const char *what, const char *name, const char *title)
{
	snprintf(picture->name, sizeof(picture->name), "%s-%s", what, name);
	for (char *at = picture->name; *at; at++)
		*at = *at == '.' ? '-' : *at;
	picture->blocks = 0;
	picture->data = picture_create(picture->name, ".dat.tmp");
	picture->script = picture_create(picture->name, ".gp.tmp");
	fprintf(picture->script, "# gnuplot %s.gp, in this folder, makes %s.svg.\n", picture->name, picture->name);
	fprintf(picture->script, "if (!exists(\"out\")) out = '%s.svg'\n", picture->name);
	fputs("set terminal svg size 960,560 dynamic background rgb 'white' font 'DejaVu Sans,14'\n"
	      "set output out\n"
	      "set key outside right top Left reverse noenhanced\n"
	      "set grid xtics ytics lc rgb '#d8d8d8'\n"
	      "set border 3\nset tics nomirror\n",
	      picture->script);
	fprintf(picture->script, "set title \"%s\" noenhanced\n", title);
}

void picture_curve(struct picture *picture, struct picture_look look, const char *style)
{
	if (picture->blocks == 0)
		fprintf(picture->script, "plot ");
	else
		fputs(", \\\n     ", picture->script);
	fprintf(picture->script, "'%s.dat' index %u using 1:2 with %s lc rgb '%s' title '%s'", picture->name,
	        picture->blocks, style, look.colour, look.title);
	fprintf(picture->data, "%s# %s\n", picture->blocks ? "\n\n" : "", look.title);
	picture->blocks++;
}

void picture_signs(struct picture *picture, struct picture_look look, const char *about)
{
	fprintf(picture->script, ", \\\n     '%s.dat' index %u using 1:2 with points pt 7 ps 1.2 lc rgb '%s' notitle",
	        picture->name, picture->blocks, look.colour);
	fprintf(picture->data, "\n\n# %s: %s\n", look.title, about);
	picture->blocks++;
}

void picture_close(struct picture *picture)
{
	fputs("\n", picture->script);
	picture_finish(picture->data, picture->name, ".dat.tmp", ".dat");
	picture_finish(picture->script, picture->name, ".gp.tmp", ".gp");
	if (pictures.count == PICTURES_MAX)
		bench_die("more than %d pictures", PICTURES_MAX);
	snprintf(pictures.names[pictures.count++], sizeof(pictures.names[0]), "%s", picture->name);
}

/* ----------------------------------------------------------------------------------------------------- drawing -- */

static char env[] = "/usr/bin/env";
static char gnuplot[] = "gnuplot";

static int picture_has_gnuplot(void)
{
	char version[] = "--version";
	char *argv[] = {env, gnuplot, version, NULL};
	char text[128];

	return child_run(argv, GNUPLOT_SECONDS, text, sizeof(text)) == 0;
}

/* 0, or -1: gnuplot failed, and said why on standard error. */
static int picture_draw(const char *name)
{
	char script[128];
	char out[160];
	char aside[PATH_MAX];
	char text[256];
	char folder[PATH_MAX];
	char chdir[] = "-C";
	char command[] = "-e";
	char *argv[] = {env, chdir, folder, gnuplot, command, out, script, NULL};

	snprintf(folder, sizeof(folder), "%s", pictures.folder);
	snprintf(script, sizeof(script), "%s.gp", name);
	snprintf(out, sizeof(out), "out='%s.svg.tmp'", name);
	picture_path(name, ".svg.tmp", aside, sizeof(aside));
	if (child_run(argv, GNUPLOT_SECONDS, text, sizeof(text)) != 0) {
		unlink(aside);
		return -1;
	}
	picture_publish(name, ".svg.tmp", ".svg");
	return 0;
}

void picture_draw_all(void)
{
	size_t drawn = 0;

	if (!picture_has_gnuplot()) {
		fprintf(stderr,
		        "uffdwp-bench: no gnuplot here, so nothing was drawn; %s has the data (.dat) and the scripts "
		        "(.gp).\nInstall gnuplot (Debian: gnuplot-nox), then run there: for f in *.gp; do gnuplot $f; "
		        "done\n",
		        pictures.folder);
		return;
	}
	for (size_t i = 0; i < pictures.count; i++)
		drawn += picture_draw(pictures.names[i]) == 0;
	fprintf(stderr, "uffdwp-bench: %zu of %zu pictures drawn into %s\n", drawn, pictures.count, pictures.folder);
	if (drawn != pictures.count)
		bench_die("gnuplot could not draw all pictures");
}
